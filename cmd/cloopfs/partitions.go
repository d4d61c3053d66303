package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/fusefs"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
	"github.com/cloopfs/cloopfs/internal/partition"
)

// partitionFiles returns the partitions of disk for a mount to show.
func partitionFiles(disk blockio.ReaderAt) func(context.Context) ([]fusefs.Partition, error) {
	return func(ctx context.Context) ([]fusefs.Partition, error) {
		table, err := partition.Read(ctx, disk)
		if errors.Is(err, partition.ErrDamaged) {
			return nil, nil // it stays so: there are none to be shown
		}
		var files []fusefs.Partition
		for _, p := range table {
			files = append(files, fusefs.Partition(p))
		}
		return files, err
	}
}

// onePartition is the part of the line's disk, with what was written to it, that
// --partition asks for. It can be written to if disk can.
func (o *mountOptions) onePartition(ctx context.Context, l *line.Line, disk blockio.ReaderAt) (_ blockio.ReaderAt, off int64, _ error) {
	if o.Line.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(o.Line.Timeout)+time.Second) // as in line.Open
		defer cancel()
	}
	table, err := partition.Read(ctx, disk)
	if err != nil {
		return nil, 0, line.Failure(fmt.Errorf("open %s: %w", l.At(), err))
	}
	var numbers []string
	for _, p := range table {
		if p.Number == o.Partition {
			if device, ok := disk.(blockio.Device); ok {
				return blockio.PartDevice(device, p.Off, p.Len), p.Off, nil
			}
			return blockio.Part(disk, p.Off, p.Len), p.Off, nil
		}
		numbers = append(numbers, strconv.Itoa(p.Number))
	}
	f := &cli.Error{
		Code: cli.ExitImage, Err: fmt.Errorf("open %s: no partition %d", l.At(), o.Partition),
		Hint: "the disk has no partition table",
	}
	if len(numbers) > 0 {
		f.Hint = "the disk's partitions are " + strings.Join(numbers, ", ")
	}
	return nil, 0, f
}

package fusefs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/cloopfs/cloopfs/blockio"
)

// Options describes a mount. The zero value shows the disk to the caller alone.
type Options struct {
	// Source is what /proc/mounts shows as the source; it must hold no secrets.
	Source string
	// ModTime is the mtime of disk.img, until it is written to; 1 January 1980 if zero.
	ModTime time.Time
	// Timeout is how long a read or write may wait before it fails with EIO; 0 means
	// for ever.
	Timeout time.Duration
	// AllowOther lets other users in, as far as Mode does.
	AllowOther bool
	// UID and GID own the files.
	UID, GID uint32
	// Mode is the mode of disk.img, the directory's with x for each r; if it is 0,
	// 0400, and 0600 for a disk that can be written to.
	Mode uint32
	// Partitions reads the disk's partition table, when somebody asks for a
	// partition or lists the directory; nil means that it has none. A failure
	// is not remembered. Not used for a disk that can be written to: each partition's
	// file would be a second page cache of the same bytes.
	Partitions func(ctx context.Context) ([]Partition, error)
	// BlockOf returns the number that errors (blockio.BlockError) give to the block at an
	// offset of the disk; nil means blocks of 64 KiB, from 0.
	BlockOf func(off int64) int64
	// Logger gets a line for each block that can't be read, until it has been read well
	// again, at most ten a minute; and one for failed writes, at most one a second. nil
	// means none.
	Logger *slog.Logger
}

const (
	// maxBackground is how many reads the kernel has under way at a time for
	// read-ahead, which every buffered read is to it. With go-fuse's default
	// of 12, so many blocks that do not come freeze the whole mount. Each has
	// a buffer of 128 KiB here. It may have fewer: see background.
	maxBackground = 1024
	// maxRequest is the most bytes that the kernel reads or writes at once: reads of
	// that size are O_DIRECT, writes any.
	maxRequest = 1 << 20
	// forever is how long the kernel may believe names and attributes.
	forever = 365 * 24 * time.Hour
)

// Server is a mounted disk.
type Server struct {
	fuse   *fuse.Server
	device *device
}

// Mount shows disk at dir, read-only, and serves it until it is unmounted by whomever.
func Mount(dir string, disk blockio.ReaderAt, opt Options) (*Server, error) {
	opt.setDefaults(0o400)
	return mount(dir, newRoot(disk, opt), opt, true)
}

// MountWritable does the same with a disk that can be written to. A write is passed
// to disk before it returns (there is no writeback cache: it would report a failed
// write once, and then forget it); fsync(2) is disk's Flush.
func MountWritable(dir string, disk blockio.Device, opt Options) (*Server, error) {
	opt.setDefaults(0o600)
	return mount(dir, newWritableRoot(disk, opt), opt, false)
}

func (opt *Options) setDefaults(mode uint32) {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.ModTime.IsZero() {
		opt.ModTime = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if opt.Mode == 0 {
		opt.Mode = mode
	}
}

func mount(dir string, root *root, opt Options, readOnly bool) (*Server, error) {
	timeout := forever
	raw := fs.NewNodeFS(root, &fs.Options{
		EntryTimeout: &timeout,
		AttrTimeout:  &timeout,
		RootStableAttr: &fs.StableAttr{
			Ino: rootIno,
		},
	})
	mountOptions := fuse.MountOptions{
		Name:                     "cloopfs",
		FsName:                   opt.Source,
		AllowOther:               opt.AllowOther,
		Options:                  []string{"default_permissions"},
		MaxBackground:            maxBackground,
		CongestionThreshold:      maxBackground,
		MaxWrite:                 maxRequest,
		DisableXAttrs:            true,
		ExplicitDataCacheControl: true,
		DisableSplice:            true, // what is served is in no file; it would be tried at each read, with /dev/null opened
		DirectMountStrict:        true,
		DirectMountFlags:         syscall.MS_NOSUID | syscall.MS_NODEV,
		Logger:                   slog.NewLogLogger(opt.Logger.Handler(), slog.LevelDebug),
	}
	if readOnly {
		mountOptions.DirectMountFlags |= syscall.MS_RDONLY
	}
	server, err := fuse.NewServer(raw, dir, &mountOptions)
	if errors.Is(err, syscall.EPERM) {
		// Not the superuser: the set-uid helper mounts.
		mountOptions.DirectMountStrict = false
		if readOnly {
			mountOptions.Options = append(mountOptions.Options, "ro")
		}
		server, err = fuse.NewServer(raw, dir, &mountOptions)
	}
	if err != nil {
		return nil, fmt.Errorf("mount at %s: %w", dir, err)
	}
	// Not later, since there are no readers yet.
	root.disk.parking.most = maxParked(background(dir))
	go server.Serve()
	return &Server{fuse: server, device: root.disk.device}, nil
}

// Wait returns when the disk has been unmounted, everybody who used it has let
// go, and every read and write has been answered.
func (s *Server) Wait() { s.fuse.Wait() }

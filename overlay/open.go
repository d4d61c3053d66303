package overlay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/ownfile"
)

// Disk opens the overlay over below, which is base: the error wraps ErrBaseMismatch
// if the overlay was made for another. What was written is flushed every few seconds,
// too; log is told if that fails. The Dir belongs to the Disk from then on, and is
// closed with it.
func (d *Dir) Disk(below blockio.ReaderAt, base Base, log *slog.Logger) (*Disk, error) {
	disk, err := d.view(below, base, unix.O_RDWR)
	if err != nil {
		return nil, d.error("open", err)
	}
	// It may have been moved. The map may have holes then.
	data, bits := disk.data.(osFile), disk.bits.(osFile)
	err = data.holes()
	if err == nil {
		err = bits.allocate(mapSize(base.Size))
	}
	if err == nil {
		err = d.setState(stateOpen)
	}
	if err != nil {
		disk.closeFiles()
		return nil, d.error("open", err)
	}
	disk.log = log
	disk.end = func(flushed bool) error {
		var err error
		if flushed {
			err = d.setState(stateClean)
		}
		return errors.Join(err, disk.closeFiles(), d.Close())
	}
	disk.timer = time.AfterFunc(flushTime, disk.flushNow)
	return disk, nil
}

// View is Disk for who only reads. Writes fail.
func (d *Dir) View(below blockio.ReaderAt, base Base) (*Disk, error) {
	disk, err := d.view(below, base, unix.O_RDONLY)
	if err != nil {
		return nil, d.error("open", err)
	}
	disk.end = func(bool) error { return errors.Join(disk.closeFiles(), d.Close()) }
	return disk, nil
}

// view opens data and map.
func (d *Dir) view(below blockio.ReaderAt, base Base, flags int) (*Disk, error) {
	if err := d.mismatch(base); err != nil {
		return nil, err
	}
	if below.Size() != base.Size {
		return nil, fmt.Errorf("a disk of %d bytes, not of %d", below.Size(), base.Size)
	}
	data, err := d.openSized(dataName, flags, base.Size)
	if err != nil {
		return nil, err
	}
	bits, err := d.openSized(mapName, flags, mapSize(base.Size))
	if err != nil {
		data.Close()
		return nil, err
	}
	disk := newDisk(below, data, bits)
	disk.dir = d
	if err := disk.here.read(bits, clusterEnd(base.Size)); err != nil {
		disk.closeFiles()
		return nil, err
	}
	if info, err := data.Stat(); err == nil && disk.Changed() > 0 {
		disk.modTime = info.ModTime()
	}
	return disk, nil
}

// openSized opens a file that must have so many bytes.
func (d *Dir) openSized(name string, flags int, size int64) (osFile, error) {
	f, err := openAt(d.f, name, flags)
	if errors.Is(err, fs.ErrNotExist) {
		return f, fmt.Errorf("%w: its %s is missing", ErrDamaged, name)
	}
	if err != nil {
		return f, err
	}
	got, err := f.size()
	if err == nil && got != size {
		err = fmt.Errorf("%w: its %s has %d bytes instead of %d", ErrDamaged, name, got, size)
	}
	if err != nil {
		f.Close()
	}
	return f, err
}

func (d *Disk) closeFiles() error { return errors.Join(d.data.Close(), d.bits.Close()) }

// read reads the map of a disk of n clusters from its file.
func (m *clusters) read(bits file, n int64) error {
	for k := int64(0); k*pageClusters < n; k++ {
		next, err := bits.NextData(k * pageSize)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the map: %w", err)
		}
		k = next / pageSize
		if k*pageClusters >= n {
			return nil
		}
		p := new(page)
		if _, err := bits.ReadAt(p[:], k*pageSize); err != nil {
			return fmt.Errorf("read the map: %w", err)
		}
		if left := n - k*pageClusters; left < pageClusters && !p.clearFrom(left) {
			return fmt.Errorf("%w: its map has bits behind the end of the disk", ErrDamaged)
		}
		m.load(k, p)
	}
	return nil
}

// clearFrom says whether no bit from n on, which is less than pageClusters, is set.
func (p *page) clearFrom(n int64) bool {
	return p[n/8]>>(n%8) == 0 && bytes.Count(p[n/8+1:], []byte{0}) == pageSize-int(n/8)-1
}

// Ephemeral returns an overlay that leaves nothing behind, even if the process is
// killed: its data lies in a file without a name, in the directory at dir, and
// nothing is ever synced.
func Ephemeral(dir string, below blockio.ReaderAt) (*Disk, error) {
	f, err := os.OpenFile(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		// A file system without nameless files: there is a moment in which it
		// has a name.
		if f, err = os.CreateTemp(dir, "cloopfs-ephemeral-"); err == nil {
			err = os.Remove(f.Name())
		}
	}
	if err != nil {
		return nil, err
	}
	data := osFile{ownfile.File{File: f}}
	err = data.holes()
	switch {
	case below.Size() > maxDisk:
		err = fmt.Errorf("%w: a disk of %d bytes", errTooLarge, below.Size())
	case err == nil:
		err = data.Truncate(below.Size())
	}
	if err != nil {
		data.Close()
		return nil, &os.PathError{Op: "make a file in", Path: dir, Err: withoutPath(err)}
	}
	return newDisk(below, data, nil), nil
}

// withoutPath is the reason in an error of package os.
func withoutPath(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	return err
}

// Info is what there is to know of an overlay.
type Info struct {
	Base
	Changed int64 // bytes of the disk that were written, in whole clusters
	Room    int64 // bytes that the overlay takes on its own disk
	Clean   bool  // whoever wrote last has closed it
	InUse   bool  // a process has it open; what it has not flushed is not counted
}

// Look says what is in the overlay at path, without opening it: it may be in use.
func Look(path string) (Info, error) {
	f, err := os.OpenFile(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return Info{}, err
	}
	d := &Dir{path: path, f: f}
	defer f.Close()
	info, err := d.look()
	if err != nil {
		return Info{}, d.error("open", err)
	}
	return info, nil
}

func (d *Dir) look() (info Info, err error) {
	if err := ownfile.Check(d.f, ErrUnsafe); err != nil {
		return info, err
	}
	if err := d.checkNames(); err != nil {
		return info, err
	}
	if info.Base, err = readMeta(d.f, metaName); errors.Is(err, fs.ErrNotExist) {
		return info, errNotOverlay
	}
	if err != nil {
		return info, err
	}
	switch d.state, err = openAt(d.f, stateName, unix.O_RDONLY); {
	case err == nil:
		defer d.state.Close()
		if err := d.readState(); err != nil {
			return info, err
		}
		info.Clean = d.clean
		info.InUse = unix.Flock(int(d.state.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
	case !errors.Is(err, fs.ErrNotExist):
		return info, err
	}
	for name, size := range map[string]int64{dataName: info.Size, mapName: mapSize(info.Size)} {
		f, err := d.openSized(name, unix.O_RDONLY, size)
		if err != nil {
			return info, err
		}
		defer f.Close()
		room, err := f.Allocated()
		if err != nil {
			return info, err
		}
		info.Room += room
		if name == mapName {
			m := newClusters()
			if err := m.read(f, clusterEnd(info.Size)); err != nil {
				return info, err
			}
			info.Changed = min(m.len()*clusterSize, info.Size)
		}
	}
	return info, nil
}

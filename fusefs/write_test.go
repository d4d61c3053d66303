package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
)

// oddSize is the size of a disk whose end lies within a sector.
const oddSize = 10_007

// writableTree is disk.img of a mount without a kernel that can be written to.
func writableTree(dev *blockiotest.Device, opt Options) *writable {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	r := newWritableRoot(dev, opt)
	fs.NewNodeFS(r, &fs.Options{})
	return r.GetChild(DiskName).Operations().(*writable)
}

// readAll is what disk.img holds.
func (d *disk) readAll(t *testing.T) []byte {
	t.Helper()
	res, e := d.Read(t.Context(), nil, make([]byte, d.attr.Size), 0)
	if e != 0 {
		t.Fatalf("Read: %v", e)
	}
	p, _ := res.Bytes(nil)
	return p
}

func TestWrite(t *testing.T) {
	want := bytes.Repeat([]byte("disk"), oddSize)[:oddSize]
	w := writableTree(blockiotest.NewDevice(bytes.Clone(want)), Options{})
	var total int64
	for _, c := range []struct {
		off, n, done int64
		want         syscall.Errno
	}{
		{off: 0, n: 1, done: 1},
		{off: 100, n: 5000, done: 5000},
		{off: 0, n: oddSize, done: oddSize},
		{off: oddSize - 1, n: 1, done: 1},
		{off: oddSize - 7, n: 4096, done: 7},
		{off: 0, n: 2 * oddSize, done: oddSize},
		{off: oddSize, n: 0},
		{off: oddSize, n: 1, want: syscall.ENOSPC},
		{off: oddSize + 1, n: 4096, want: syscall.ENOSPC},
		{off: math.MaxInt64, n: 4096, want: syscall.ENOSPC},
	} {
		p := bytes.Repeat([]byte{byte(c.off + c.n)}, int(c.n))
		n, e := w.Write(t.Context(), nil, p, c.off)
		if int64(n) != c.done || e != c.want {
			t.Errorf("Write(%d bytes, %d) = %d, %v; want %d, %v", c.n, c.off, n, e, c.done, c.want)
		}
		if c.off < oddSize {
			copy(want[c.off:], p)
		}
		if !bytes.Equal(w.readAll(t), want) {
			t.Errorf("after Write(%d bytes, %d) the disk has other bytes", c.n, c.off)
		}
		total += c.done
	}
	// Who writes beyond the end has made a mistake: nothing failed here.
	if st := w.count.stats(); st.Writes != 7 || st.Written != total || st.WriteErrors != 0 || st.LastError != "" {
		t.Errorf("counted %+v, want 7 writes of %d bytes and no error", st, total)
	}
}

// A disk that can't be written to isn't.
func TestReadOnlyDisk(t *testing.T) {
	d := tree(numbered(), Options{}).disk
	for _, flags := range []uint32{syscall.O_WRONLY, syscall.O_RDWR} {
		if _, _, e := d.Open(t.Context(), flags); e != syscall.EROFS {
			t.Errorf("Open(%d): %v, want EROFS", flags, e)
		}
	}
	if _, ok := fs.InodeEmbedder(d).(fs.NodeWriter); ok {
		t.Error("it can be written to")
	}
}

func TestAllocate(t *testing.T) {
	const beyond, no = syscall.EFBIG, syscall.EOPNOTSUPP
	for _, c := range []struct {
		mode      uint32
		off, size uint64
		want      syscall.Errno
		zeros     bool
	}{
		{0, 0, oddSize, 0, false},
		{1, 100, 1000, 0, false},
		{3, 0, oddSize, 0, true},
		{3, 100, 5000, 0, true},
		{3, oddSize - 1, 1, 0, true},
		{0x11, 0, oddSize, 0, true},
		{0x11, 4096, 4096, 0, true},
		{0, oddSize, 1, beyond, false},
		{1, 0, oddSize + 1, beyond, false},
		{3, oddSize - 1, 2, beyond, false},
		{3, math.MaxInt64, math.MaxInt64, beyond, false},
		{3, math.MaxUint64, 2, beyond, false},
		{0x11, oddSize, 4096, beyond, false},
		{0x10, 0, 10, 0, true},
		{0x10, oddSize - 1, 2, beyond, false},
		{2, 0, 10, no, false},
		{unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4096, no, false},
		{unix.FALLOC_FL_INSERT_RANGE, 0, 4096, no, false},
		{unix.FALLOC_FL_UNSHARE_RANGE, 0, 4096, no, false},
	} {
		w := writableTree(blockiotest.NewDevice(bytes.Repeat([]byte{1}, oddSize)), Options{})
		if e := w.Allocate(t.Context(), nil, c.off, c.size, c.mode); e != c.want {
			t.Errorf("Allocate(%#x, %d+%d): %v, want %v", c.mode, c.off, c.size, e, c.want)
		}
		want := bytes.Repeat([]byte{1}, oddSize)
		if c.zeros {
			clear(want[c.off : c.off+c.size])
		}
		if !bytes.Equal(w.readAll(t), want) {
			t.Errorf("after Allocate(%#x, %d+%d) the disk has other bytes", c.mode, c.off, c.size)
		}
		if changed := w.changed.Load() != 0; changed != c.zeros {
			t.Errorf("after Allocate(%#x, %d+%d) changed is %v", c.mode, c.off, c.size, changed)
		}
	}
}

func TestSetattr(t *testing.T) {
	w := writableTree(blockiotest.NewDevice(make([]byte, oddSize)), Options{Mode: 0o600, UID: 5, ModTime: time.Unix(1000, 0)})
	for _, c := range []struct {
		name string
		in   fuse.SetAttrInCommon
		want syscall.Errno
	}{
		{"nothing", fuse.SetAttrInCommon{}, 0},
		{"its size", fuse.SetAttrInCommon{Valid: fuse.FATTR_SIZE | fuse.FATTR_FH, Size: oddSize}, 0},
		{"size 0", fuse.SetAttrInCommon{Valid: fuse.FATTR_SIZE}, syscall.EPERM},
		{"more", fuse.SetAttrInCommon{Valid: fuse.FATTR_SIZE, Size: oddSize + 1}, syscall.EPERM},
		{"times", fuse.SetAttrInCommon{Valid: fuse.FATTR_ATIME | fuse.FATTR_MTIME | fuse.FATTR_MTIME_NOW, Mtime: 5}, 0},
		{"mode", fuse.SetAttrInCommon{Valid: fuse.FATTR_MODE, Mode: 0o666}, syscall.EPERM},
		{"owner", fuse.SetAttrInCommon{Valid: fuse.FATTR_UID | fuse.FATTR_MTIME}, syscall.EPERM},
		{"group", fuse.SetAttrInCommon{Valid: fuse.FATTR_GID}, syscall.EPERM},
	} {
		var out fuse.AttrOut
		if e := w.Setattr(t.Context(), nil, &fuse.SetAttrIn{SetAttrInCommon: c.in}, &out); e != c.want {
			t.Errorf("%s: %v, want %v", c.name, e, c.want)
		}
		if c.want == 0 && (out.Size != oddSize || out.Mode != 0o600 || out.Uid != 5 || out.Mtime != 1000 || out.Ino != diskIno) {
			t.Errorf("%s: the attributes are %+v", c.name, out.Attr)
		}
	}
}

// stat shows when the disk was written to last.
func TestModTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := writableTree(blockiotest.NewDevice(make([]byte, oddSize)), Options{ModTime: time.Unix(1000, 0)})
		mtime := func() time.Time {
			var byName fuse.EntryOut
			if _, e := w.Root().Operations().(*root).Lookup(t.Context(), DiskName, &byName); e != 0 {
				t.Fatal(e)
			}
			var out fuse.AttrOut
			w.Getattr(t.Context(), nil, &out)
			if out.Attr != byName.Attr {
				t.Errorf("Lookup says %+v, Getattr %+v", byName.Attr, out.Attr)
			}
			if out.ModTime() != out.ChangeTime() || out.Atime != 1000 || out.Size != oddSize || out.Blocks != 20 {
				t.Errorf("attributes are %+v", out.Attr)
			}
			return out.ModTime()
		}
		if got := mtime(); !got.Equal(time.Unix(1000, 0)) {
			t.Errorf("at first it is %v", got)
		}
		for name, change := range map[string]func() syscall.Errno{
			"write":   func() syscall.Errno { _, e := w.Write(t.Context(), nil, []byte{1}, 0); return e },
			"zeroing": func() syscall.Errno { return w.Allocate(t.Context(), nil, 0, 1, punchHole) },
		} {
			time.Sleep(1234567 * time.Microsecond)
			now := time.Now()
			if e := change(); e != 0 {
				t.Fatal(e)
			}
			time.Sleep(time.Second)
			w.Fsync(t.Context(), nil, 0)
			w.readAll(t)
			if got := mtime(); !got.Equal(now) {
				t.Errorf("after a %s it is %v, want %v", name, got, now)
			}
		}
	})
}

// Each way to change the disk, and what makes it fail.
var changes = []struct {
	name string
	do   func(ctx context.Context, w *writable) syscall.Errno
	// on makes the device do something first.
	on func(dev *blockiotest.Device, f func(context.Context) error)
}{
	{
		"write",
		func(ctx context.Context, w *writable) syscall.Errno {
			_, e := w.Write(ctx, nil, []byte("abc"), 5)
			return e
		},
		func(dev *blockiotest.Device, f func(context.Context) error) {
			dev.OnWrite = func(ctx context.Context, _ blockio.Extent) error { return f(ctx) }
		},
	},
	{
		"zeroing",
		func(ctx context.Context, w *writable) syscall.Errno {
			return w.Allocate(ctx, nil, 5, 3, zeroRange)
		},
		func(dev *blockiotest.Device, f func(context.Context) error) {
			dev.OnZero = func(ctx context.Context, _ blockio.Extent) error { return f(ctx) }
		},
	},
	{
		"flush",
		func(ctx context.Context, w *writable) syscall.Errno { return w.Fsync(ctx, nil, 0) },
		func(dev *blockiotest.Device, f func(context.Context) error) { dev.OnFlush = f },
	},
}

// What fails fails for its caller, with the number that says why, and is counted and logged.
func TestFailedChange(t *testing.T) {
	for _, c := range changes {
		for _, f := range []struct {
			err  error
			want syscall.Errno
		}{
			{fmt.Errorf("write to data: %w", syscall.ENOSPC), syscall.ENOSPC},
			{fmt.Errorf("write to data: %w", syscall.EDQUOT), syscall.EDQUOT},
			{fmt.Errorf("write to data: %w", syscall.EROFS), syscall.EROFS},
			{fmt.Errorf("write to data: %w", syscall.EIO), syscall.EIO},
			{fmt.Errorf("write to data: %w", syscall.ENOSYS), syscall.EIO},
			{errors.New("write to data: line is down"), syscall.EIO},
		} {
			dev := blockiotest.NewDevice(numbered())
			var log bytes.Buffer
			w := writableTree(dev, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			c.on(dev, func(context.Context) error { return f.err })
			for range 2 {
				if e := c.do(t.Context(), w); e != f.want {
					t.Errorf("%s fails with %v: %v, want %v", c.name, f.err, e, f.want)
				}
			}
			st := w.count.stats()
			if st.WriteErrors != 2 || st.Errors != 0 || st.Writes != 0 || st.Flushes != 0 || st.LastError != f.err.Error() || st.LastErrorAt.IsZero() {
				t.Errorf("%s: counted %+v", c.name, st)
			}
			if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, c.name+" failed") || !strings.Contains(got, "write to data") {
				t.Errorf("%s: the log is %q, want one line", c.name, got)
			}
			c.on(dev, func(context.Context) error { return nil })
			if e := c.do(t.Context(), w); e != 0 {
				t.Errorf("%s after the failure: %v", c.name, e)
			}
		}
	}
}

// Failed reads, of which there are many when the line is down, do not keep failed
// writes out of the log.
func TestFailedReadsHideNoFailedWrite(t *testing.T) {
	dev := blockiotest.NewDevice(numbered())
	down := errors.New("down")
	dev.OnRead = func(context.Context, blockio.Extent) error { return down }
	dev.OnFlush = func(context.Context) error { return down }
	var log bytes.Buffer
	w := writableTree(dev, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for range 10 {
		if _, e := w.Read(t.Context(), nil, make([]byte, 10), 0); e != syscall.EIO {
			t.Errorf("Read: %v, want EIO", e)
		}
	}
	w.Fsync(t.Context(), nil, 0)
	if !strings.Contains(log.String(), "flush failed") {
		t.Errorf("the log is %q", log.String())
	}
	if st := w.count.stats(); st.Errors != 10 || st.WriteErrors != 1 {
		t.Errorf("counted %+v", st)
	}
}

// A write waits for the timeout, each time, or until its writer gives up; a flush
// for as long as it takes.
func TestWaitOfChange(t *testing.T) {
	const timeout = 2 * time.Second
	wait := func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return fmt.Errorf("complete the block: %w", ctx.Err())
		case <-time.After(time.Hour):
			return nil
		}
	}
	for _, c := range changes {
		flush := c.name == "flush"
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dev := blockiotest.NewDevice(numbered())
				c.on(dev, wait)
				var log bytes.Buffer
				w := writableTree(dev, Options{Timeout: timeout, Logger: slog.New(slog.NewTextHandler(&log, nil))})
				timed := func(ctx context.Context) (syscall.Errno, time.Duration) {
					start := time.Now()
					e := c.do(ctx, w)
					return e, time.Since(start)
				}
				if !flush {
					for range 2 {
						if e, d := timed(t.Context()); e != syscall.EIO || d != timeout+timeoutSlack {
							t.Errorf("%v after %v, want EIO after %v", e, d, timeout+timeoutSlack)
						}
					}
				}
				log.Reset()
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				e, d := timed(ctx)
				switch {
				case flush && (e != 0 || d != time.Hour):
					t.Errorf("interrupted: %v after %v, want success after an hour", e, d)
				case !flush && (e != syscall.EINTR || d != time.Second):
					t.Errorf("interrupted: %v after %v, want EINTR after a second", e, d)
				}
				if log.Len() > 0 {
					t.Errorf("the log is %q, want nothing", log.Bytes())
				}
			})
		})
	}
}

// What was written although the writer was interrupted is no failure.
func TestInterruptedWriteThatSucceeds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := writableTree(blockiotest.NewDevice(numbered()), Options{Timeout: time.Second})
	if n, e := w.Write(ctx, nil, []byte("abc"), 5); n != 3 || e != 0 {
		t.Errorf("Write = %d, %v; want 3, success", n, e)
	}
}

// A write that timed out makes no read impatient, nor the other way round.
func TestTimeoutsOfReadsAndWritesAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 2 * time.Second
		dev := blockiotest.NewDevice(numbered())
		stuck := func(ctx context.Context, _ blockio.Extent) error { <-ctx.Done(); return ctx.Err() }
		dev.OnWrite, dev.OnRead = stuck, stuck
		w := writableTree(dev, Options{Timeout: timeout})
		read := func() { w.Read(t.Context(), nil, make([]byte, 100), 0) }
		write := func() { w.Write(t.Context(), nil, make([]byte, 100), 0) }
		for i, do := range []func(){write, read, write} {
			start := time.Now()
			do()
			if got := time.Since(start); got != timeout+timeoutSlack {
				t.Errorf("number %d waited for %v, want %v", i, got, timeout+timeoutSlack)
			}
		}
	})
}

// The directory of a disk that can be written to never changes, and has no
// partitions.
func TestDirectoryOfWritableDisk(t *testing.T) {
	w := writableTree(blockiotest.NewDevice(numbered()), Options{Mode: 0o600, Partitions: func(context.Context) ([]Partition, error) {
		return twoParts, nil
	}})
	r := w.Root().Operations().(*root)
	if got := listing(t, r); len(got) != 1 || got[0].Name != DiskName {
		t.Errorf("listing is %v, want the disk alone", got)
	}
	if r.attr.Mode != 0o700 {
		t.Errorf("the directory's mode is %o", r.attr.Mode)
	}
	if e := r.Unlink(t.Context(), DiskName); e != syscall.EPERM {
		t.Errorf("Unlink: %v, want EPERM", e)
	}
	if e := r.Rename(t.Context(), DiskName, r, "other", 0); e != syscall.EPERM {
		t.Errorf("Rename: %v, want EPERM", e)
	}
	if _, _, _, e := r.Create(t.Context(), "other", 0, 0o600, new(fuse.EntryOut)); e != syscall.EPERM {
		t.Errorf("Create: %v, want EPERM", e)
	}
	var out fuse.AttrOut
	if e := r.Setattr(t.Context(), nil, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{Valid: fuse.FATTR_MODE}}, &out); e != syscall.EPERM {
		t.Errorf("Setattr of the mode: %v, want EPERM", e)
	}
	if e := r.Setattr(t.Context(), nil, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{Valid: fuse.FATTR_MTIME}}, &out); e != 0 || out.Ino != rootIno {
		t.Errorf("Setattr of times: %v, inode %d", e, out.Ino)
	}
}

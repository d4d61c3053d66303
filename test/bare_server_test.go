//go:build integration

package test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The bare FUSE server is this test program, run again with this variable set: it shows
// the file that its first argument names as disk.img in the directory of its second, from
// memory, as fast as go-fuse can.
const bareEnv = "CLOOPFS_TEST_BARE"

// serveBareAt starts it.
func serveBareAt(t testing.TB, file, dir string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, file, dir)
	cmd.Env = append(os.Environ(), bareEnv+"=1")
	p := startCmd(t, cmd)
	waitFor(t, "mounted", func() bool { return p.running() && mounted(dir) })
	return p
}

func bareMain(args []string) int {
	if err := serveBare(args[0], args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func serveBare(file, dir string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	bytes, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return err
	}
	timeout := time.Hour
	root := &fs.Inode{}
	server, err := fs.Mount(dir, root, &fs.Options{
		EntryTimeout: &timeout, AttrTimeout: &timeout,
		MountOptions: fuse.MountOptions{
			MaxBackground: 1024, CongestionThreshold: 1024, MaxWrite: mib,
			DisableXAttrs: true, ExplicitDataCacheControl: true, DirectMountStrict: true,
		},
		OnAdd: func(ctx context.Context) {
			root.AddChild("disk.img", root.NewPersistentInode(ctx, &bareFile{bytes: bytes}, fs.StableAttr{}), false)
		},
	})
	if err != nil {
		return err
	}
	server.Wait()
	return nil
}

// bareFile is a file in memory.
type bareFile struct {
	fs.Inode
	bytes []byte
}

func (f *bareFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = 0o444, uint64(len(f.bytes))
	return 0
}

// Open has no close(2) wait for this process: others end although it is stopped.
func (f *bareFile) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH, 0
}

func (f *bareFile) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	end := min(off+int64(len(dest)), int64(len(f.bytes)))
	return fuse.ReadResultData(f.bytes[off:end]), 0
}

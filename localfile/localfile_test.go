package localfile_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/localfile"
)

func newFile(t *testing.T, n int) (path string, data []byte) {
	t.Helper()
	data = make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(data)
	path = filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, data
}

func TestConforms(t *testing.T) {
	path, data := newFile(t, 300_000)
	f, err := localfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	blockiotest.TestRanges(t, f, data)
	blockiotest.TestReaderAt(t, f, data)
	blockiotest.TestPrompt(t, f, data, canTell(t, path)) // it was written just now
}

// canTell says whether the file system tells what is in the page cache.
func canTell(t *testing.T, path string) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = unix.Preadv2(int(f.Fd()), [][]byte{make([]byte, 1)}, 0, unix.RWF_NOWAIT)
	t.Logf("the file system can tell: %v", err)
	return !errors.Is(err, unix.EOPNOTSUPP)
}

func TestOpenFails(t *testing.T) {
	if _, err := localfile.Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open of nothing: %v", err)
	}
	if _, err := localfile.Open(t.TempDir()); err == nil {
		t.Error("Open of a directory: no error")
	}
}

// A file that was changed under its reader is an error, not other bytes.
func TestChanged(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"rewritten": func(path string) error {
			return errors.Join(os.WriteFile(path, make([]byte, 1000), 0o600), os.Chtimes(path, time.Time{}, time.Now().Add(time.Hour)))
		},
		"cut off": func(path string) error { return os.Truncate(path, 500) },
		"grown":   func(path string) error { return os.Truncate(path, 5000) },
		"grown, with its old mtime": func(path string) error {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			return errors.Join(os.Truncate(path, 5000), os.Chtimes(path, time.Time{}, info.ModTime()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path, _ := newFile(t, 1000)
			f, err := localfile.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := change(path); err != nil {
				t.Fatal(err)
			}
			if _, err := f.ReadAtContext(t.Context(), make([]byte, 10), 0); !errors.Is(err, localfile.ErrChanged) {
				t.Errorf("read: %v, want ErrChanged", err)
			}
			if f.ReadNow(make([]byte, 10), 0) {
				t.Error("ReadNow of the changed file has succeeded")
			}
			if f.Size() != 1000 {
				t.Errorf("Size() = %d, want what was opened", f.Size())
			}
		})
	}
}

// A file that takes another's name is none of our business.
func TestReplaced(t *testing.T) {
	path, data := newFile(t, 1000)
	f, err := localfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(os.Remove(path), os.WriteFile(path, make([]byte, 1000), 0o600)); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 1000)
	if _, err := f.ReadAtContext(t.Context(), p, 0); err != nil || string(p) != string(data) {
		t.Errorf("read: %v; want the bytes that were opened", err)
	}
}

func TestEndedContext(t *testing.T) {
	path, _ := newFile(t, 1000)
	f, err := localfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	body, err := f.OpenRange(ctx, blockio.Range{Extent: blockio.Extent{Len: 1000}})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	cancel()
	if _, err := io.ReadAll(body); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v, want the context's error", err)
	}
}

// Holes are told as such; where they are is the file system's matter.
func TestMapAt(t *testing.T) {
	path, _ := newFile(t, 100_000)
	if err := os.Truncate(path, 3<<20); err != nil {
		t.Fatal(err)
	}
	f, err := localfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zeros := int64(0)
	for off := int64(0); off < f.Size(); {
		n, zero, err := f.MapAt(t.Context(), off)
		if err != nil || n <= 0 || off+n > f.Size() {
			t.Fatalf("%d bytes at %d: %v", n, off, err)
		}
		if zero {
			zeros += n
			p := make([]byte, n)
			if _, err := f.ReadAtContext(t.Context(), p, off); err != nil && err != io.EOF || len(bytes.Trim(p, "\x00")) > 0 {
				t.Errorf("%d bytes at %d are not zeros: %v", n, off, err)
			}
		}
		off += n
	}
	if zeros == 0 {
		t.Error("nothing is known to be zeros: this test needs a file system with holes")
	}
	if err := os.Truncate(path, 1000); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.MapAt(t.Context(), 0); !errors.Is(err, localfile.ErrChanged) {
		t.Errorf("of a file that was cut off: %v", err)
	}
}

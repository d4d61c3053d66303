//go:build integration

package test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// fixtures holds images that take long to make. It is kept between runs; remove
// it to have them made anew.
const fixtures = "../build/fixtures"

// fixture is an image made by the format's own tool.
type fixture struct {
	raw   string // path of the disk
	image string // path of the disk as cloop
	sum   string // SHA-256 of the disk, in hex
	files string // path of what sha256sum says of every regular file on the disk
}

// Each image is made once, when the first test asks for it.
var (
	debian64K = sync.OnceValues(func() (fixture, error) { return makeDebian("debian-64k.cloop", "-B", "64K", "-L", "6") })
	debian1M  = sync.OnceValues(func() (fixture, error) { return makeDebian("debian-1m.cloop", "-B", "1M", "-L", "-1") })
	small     = sync.OnceValues(makeSmall)
)

// need makes a fixture, or the test fails.
func need(t testing.TB, build func() (fixture, error)) fixture {
	t.Helper()
	f, err := build()
	if err != nil {
		t.Fatalf("make the test image: %v", err)
	}
	return f
}

// makeDebian makes a Debian root file system of 1.2 GB and packs it. That takes
// minutes, with blocks of 1 MiB many of them.
func makeDebian(image string, pack ...string) (fixture, error) {
	return makeFixture("debian", image, pack, func(root string) error {
		mirror, err := debianMirror()
		if err != nil {
			return err
		}
		return command("debootstrap", "--variant=minbase", "--include=init,udev,iproute2,procps,kmod", "bookworm", root, mirror)
	}, "1200M")
}

// makeSmall makes a file system of 8 MiB and packs it, in a moment.
func makeSmall() (fixture, error) {
	return makeFixture("small", "small.cloop", []string{"-B", "64K", "-L", "6"}, growTree, "8M")
}

// makeFixture makes, as far as they are not there: the tree of files NAME-rootfs
// by grow, the disk NAME.ext4, checksums of both, and the image.
func makeFixture(name, image string, pack []string, grow func(root string) error, size string) (f fixture, err error) {
	dir, err := filepath.Abs(fixtures)
	if err != nil {
		return f, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return f, err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return f, err
	}
	defer unlock()

	root := filepath.Join(dir, name+"-rootfs")
	sum := filepath.Join(dir, name+".sha256")
	f = fixture{
		raw:   filepath.Join(dir, name+".ext4"),
		image: filepath.Join(dir, image),
		files: filepath.Join(dir, name+".files"),
	}
	// Whatever is made anew makes what was made of it useless.
	err = chain(
		step{root, grow},
		step{f.raw, func(out string) error {
			return command("mke2fs", "-q", "-t", "ext4", "-d", root, "-L", "root", out, size)
		}},
		step{f.files, func(out string) error { return listFiles(root, out) }},
		step{sum, func(out string) error { return hashFile(f.raw, out) }},
	)
	if err != nil {
		return f, err
	}
	if older(f.image, f.raw) {
		_ = os.Remove(f.image) // made below
	}
	err = chain(step{f.image, func(out string) error {
		return command("create_compressed_fs", append(append([]string{"-q"}, pack...), f.raw, out)...)
	}})
	if err != nil {
		return f, err
	}
	raw, err := os.ReadFile(sum)
	f.sum = string(raw)
	return f, err
}

// step makes a file or directory.
type step struct {
	path string
	make func(path string) error
}

// chain takes the steps whose result is missing, and all that follow the first
// of those.
func chain(steps ...step) error {
	missing := false
	for _, s := range steps {
		if _, err := os.Lstat(s.path); err == nil && !missing {
			continue
		}
		missing = true
		unfinished := s.path + ".tmp"
		for _, path := range []string{s.path, unfinished} {
			if err := command("rm", "-rf", "--one-file-system", path); err != nil {
				return err
			}
		}
		if err := s.make(unfinished); err != nil {
			return err
		}
		if err := os.Rename(unfinished, s.path); err != nil {
			return err
		}
	}
	return nil
}

// older says whether a is there and was made before b.
func older(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && infoA.ModTime().Before(infoB.ModTime())
}

// lock keeps two runs from making the same fixture.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// command runs a tool that makes a fixture.
func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// debianMirror is where this machine's packages come from.
func debianMirror() (string, error) {
	for _, file := range []string{"/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"} {
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			if len(fields) < 2 || fields[0] != "URIs:" && fields[0] != "deb" {
				continue
			}
			for _, field := range fields[1:] {
				if strings.Contains(field, "://") {
					return field, nil
				}
			}
		}
	}
	return "", fmt.Errorf("no Debian mirror in /etc/apt/sources.list.d/debian.sources or /etc/apt/sources.list")
}

// listScript prints the checksum of every regular file below a directory.
const listScript = `cd "$1" && find . -xdev -type f -print0 | sort -z | xargs -0 -r sha256sum`

func listFiles(root, out string) error {
	list, err := exec.Command("sh", "-c", listScript, "sh", root).Output()
	if err != nil {
		return fmt.Errorf("checksums of %s: %w", root, err)
	}
	return os.WriteFile(out, list, 0o644)
}

func hashFile(path, out string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	return os.WriteFile(out, []byte(hex.EncodeToString(h.Sum(nil))), 0o644)
}

// growTree makes a small tree with a file of each sort: text, noise, zeros,
// nothing.
func growTree(root string) error {
	noise := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise) // never fails
	if err := os.MkdirAll(filepath.Join(root, "a", "b"), 0o755); err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"text":       bytes.Repeat([]byte("all work and no play\n"), 40_000),
		"a/noise":    noise,
		"a/b/zeros":  make([]byte, 1<<20),
		"a/b/empty":  nil,
		"a/one byte": []byte("x"),
	} {
		if err := os.WriteFile(filepath.Join(root, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

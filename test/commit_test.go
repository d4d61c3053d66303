//go:build integration

package test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A new image has what was written and all the rest, whatever the base is, and the
// overlay stays as it was.
func TestCommit(t *testing.T) {
	docs, err := filepath.Abs("../testdata/cloop")
	if err != nil {
		t.Fatal(err)
	}
	server := nginx.start(t, docs)
	images, err := filepath.Glob(filepath.Join(docs, "*.cloop"))
	if err != nil || len(images) < 8 {
		t.Fatal(images, err)
	}
	raw := need(t, small).raw
	for _, image := range append(images, raw) {
		name := filepath.Base(image)
		t.Run(name, func(t *testing.T) {
			source := server + "/" + name
			if image == raw {
				source = raw
			}
			work := makeDir(t)
			overlay, output := filepath.Join(work, "overlay"), filepath.Join(work, "new.cloop")
			dir := mount(t, source, "--overlay", overlay)
			disk := diskOf(dir)
			must(t, "dd", "if=/dev/urandom", "of="+disk, "bs=5000", "count=5", "seek=3", "conv=notrunc,fsync", "status=none")
			must(t, "fallocate", "--punch-hole", "--offset", "100000", "--length", "70000", disk)
			info, err := os.Stat(disk)
			if err != nil {
				t.Fatal(err)
			}
			want, _, _ := strings.Cut(must(t, "sha256sum", disk), " ")
			if image == raw { // it waits for the mount to end
				checkFailure(t, run(t, cloopfs, "overlay", "commit", overlay, output), 1, "the overlay is in use")
			}
			umount(t, dir)
			before := must(t, cloopfs, "overlay", "info", overlay)

			must(t, cloopfs, "overlay", "commit", overlay, output)
			checkFailure(t, run(t, cloopfs, "overlay", "commit", overlay, output), 1, "file already exists")
			if after := must(t, cloopfs, "overlay", "info", overlay); after != before {
				t.Errorf("the overlay was\n%sand is\n%s", before, after)
			}
			checkVersion(t, image, output, info.Size())
			extracted := filepath.Join(work, "disk")
			must(t, cloopfs, "extract", output, extracted)
			equalSum(t, "the new image", must(t, "sha256sum", extracted), want)
		})
	}
}

// checkVersion checks that the image at output has version 2.0 if that can be, and that
// the format's own tools read it then.
func checkVersion(t *testing.T, base, output string, size int64) {
	t.Helper()
	version := func(path string) string {
		var info struct{ Format string }
		if err := json.Unmarshal([]byte(must(t, cloopfs, "info", "--json", path)), &info); err != nil {
			t.Fatal(err)
		}
		return info.Format
	}
	name := filepath.Base(base)
	v2 := !strings.HasPrefix(name, "v4-") || name == "v4-zlib.cloop"
	if got := version(output); strings.Contains(got, "2.0") != v2 {
		t.Errorf("the new image of %s is %q", name, got)
	}
	if !v2 {
		return
	}
	must(t, cloopfs, "extract", output, output+".ours")
	must(t, "qemu-img", "convert", "-f", "cloop", "-O", "raw", output, output+".qemu")
	must(t, "cmp", output+".qemu", output+".ours")
	if size < 10*128<<10 {
		return // Debian's tool divides by a tenth of the number of blocks
	}
	must(t, "extract_compressed_fs", output, output+".debian")
	must(t, "cmp", output+".debian", output+".ours")
}

// A new image takes the place neither of the overlay's files nor of its base, whatever
// way leads there.
func TestCommitOntoItself(t *testing.T) {
	work := makeDir(t)
	base, overlay, links := filepath.Join(work, "base"), filepath.Join(work, "overlay"), filepath.Join(work, "links")
	must(t, "cp", "--preserve=timestamps", need(t, small).image, base)
	dir := mount(t, base, "--overlay", overlay)
	must(t, "dd", "if=/dev/urandom", "of="+diskOf(dir), "bs=4096", "count=5", "conv=notrunc,fsync", "status=none")
	umount(t, dir)
	must(t, "mkdir", links)
	for name, to := range map[string]string{"overlay": "../overlay", "data": "../overlay/data", "base": "../base"} {
		if err := os.Symlink(to, filepath.Join(links, name)); err != nil {
			t.Fatal(err)
		}
	}
	must(t, "ln", base, filepath.Join(links, "hard"))
	before := must(t, "sh", "-c", `sha256sum "$1" "$2"/* && ls "$2"`, "sh", base, overlay)
	const inside, itself = "it lies in the overlay's directory", "it is the overlay's base"
	for output, want := range map[string]string{
		"overlay/data": inside, "overlay/new": inside, "links/overlay/map": inside, "links/overlay/new": inside, "links/data": inside,
		"base": itself, "links/base": itself, "links/hard": itself, "links/overlay/../base": itself,
	} {
		r := run(t, "sh", "-c", `cd "$1" && "$2" overlay commit --force overlay "$3"`, "sh", work, cloopfs, output)
		checkFailure(t, r, 1, "write the image: "+output+": "+want)
	}
	r := run(t, "sh", "-c", `cd "$1" && "$2" overlay commit --force . ../overlay/data`, "sh", filepath.Join(links, "overlay"), cloopfs)
	checkFailure(t, r, 1, inside)
	if after := must(t, "sh", "-c", `sha256sum "$1" "$2"/* && ls "$2"`, "sh", base, overlay); after != before {
		t.Errorf("there was\n%sand is\n%s", before, after)
	}
	must(t, cloopfs, "overlay", "commit", overlay, filepath.Join(links, "new"))
}

// Whatever ends it, there is a whole image or none, and the overlay is as it was.
func TestCommitKilled(t *testing.T) {
	f := need(t, debian64K)
	work := makeDir(t)
	overlay, output := filepath.Join(work, "overlay"), filepath.Join(work, "new.cloop")
	dir := mount(t, f.image, "--overlay", overlay)
	must(t, "dd", "if=/dev/urandom", "of="+diskOf(dir), "bs=1M", "count=40", "seek=500", "conv=notrunc,fsync", "status=none")
	umount(t, dir)
	before := must(t, cloopfs, "overlay", "info", overlay)
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT, syscall.SIGKILL} {
		p := start(t, cloopfs, "overlay", "commit", overlay, output)
		waitFor(t, "the new image to grow", func() bool { return p.hasOpen(t, work, 1<<20) })
		if err := p.cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if r := p.result(t); signal == syscall.SIGINT && r.code != 130 || r.code == 0 {
			t.Errorf("after %v: %v", signal, r)
		}
		if _, err := os.Stat(output); err == nil {
			t.Fatalf("after %v there is an image", signal)
		}
		if left, err := os.ReadDir(work); err != nil || len(left) != 1 {
			t.Errorf("after %v there is %v, %v; want the overlay alone", signal, left, err)
		}
	}
	if after := must(t, cloopfs, "overlay", "info", overlay); after != before {
		t.Errorf("the overlay was\n%sand is\n%s", before, after)
	}
	must(t, cloopfs, "overlay", "commit", overlay, output)
	must(t, cloopfs, "verify", output)
}

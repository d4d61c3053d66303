//go:build integration

package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// onTerminal makes a command's input and output a terminal. What it prints is its
// standard output then.
func onTerminal(cmd *exec.Cmd) *exec.Cmd {
	var line strings.Builder
	for _, arg := range cmd.Args {
		line.WriteString("'" + strings.ReplaceAll(arg, "'", `'\''`) + "' ")
	}
	script := exec.Command("script", "--quiet", "--return", "--command", line.String(), "/dev/null")
	script.Env, script.Dir = cmd.Env, cmd.Dir
	return script
}

// mountOnTerminal mounts the image at url and returns what a person sees.
func mountOnTerminal(t *testing.T, url, dir string, flags ...string) string {
	t.Helper()
	r := startCmd(t, onTerminal(exec.Command(cloopfs, slices.Concat([]string{"mount"}, flags, []string{url, dir})...))).result(t)
	if r.code != 0 {
		t.Fatalf("mount: %v", r)
	}
	return strings.ReplaceAll(r.stdout, "\r\n", "\n")
}

// Somebody at a terminal is told what has been mounted and what to do next; a
// script is told nothing.
func TestFirstContact(t *testing.T) {
	noise := makeImage(t, 64*kib, blocks(16, 64*kib)...)
	noiseFile := filepath.Join(t.TempDir(), "noise.cloop")
	if err := os.WriteFile(noiseFile, noise.image, 0o644); err != nil {
		t.Fatal(err)
	}
	plain, disc, gpt := need(t, small), needDisc(t), needDisk(t, gptDisk)
	iso := disc.iso
	isoSize := fmt.Sprintf("%.1f MiB", float64(sizeOf(t, iso))/mib)
	tests := []struct {
		name, image string
		flags       []string
		// want has MNT for the mountpoint and URL for the image's.
		want string
	}{
		{"file system", plain.image, nil, "cloopfs: mounted at MNT: disk.img, 8 MiB ext4\ncloopfs: hint: mount -o loop,ro MNT/disk.img /mnt\n"},
		{"ISO", iso, nil, "cloopfs: mounted at MNT: disk.img, " + isoSize + " ISO 9660\n" +
			"cloopfs: hint: mount -o loop,ro MNT/disk.img /mnt\n" +
			"cloopfs: hint: to mount the system inside: cloopfs mount 'URL#KNOPPIX/KNOPPIX' DIR\n"},
		{"GPT", gpt.image, nil, "cloopfs: mounted at MNT: disk.img, 24 MiB GPT with 3 partitions\ncloopfs: hint: mount -o loop,ro MNT/disk.img.p3 /mnt\n"},
		{"raw MBR", needDisk(t, mbrDisk).raw, nil, "cloopfs: mounted at MNT: disk.img, 24 MiB MBR with 5 partitions\ncloopfs: hint: mount -o loop,ro MNT/disk.img.p5 /mnt\n"},
		{"partition", gpt.image, []string{"--partition=4"}, "cloopfs: mounted at MNT: disk.img, 2 MiB ext3\ncloopfs: hint: mount -o loop,ro MNT/disk.img /mnt\n"},
		{"noise", noiseFile, nil, "cloopfs: mounted at MNT: disk.img, 1 MiB\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			url := serveFile(t, test.image)
			dir := makeDir(t)
			got := mountOnTerminal(t, url, dir, test.flags...)
			if want := strings.NewReplacer("MNT", dir, "URL", url).Replace(test.want); got != want {
				t.Errorf("on a terminal: got %q, want %q", got, want)
			}
			// What the first hint says works, for file systems that every kernel has.
			if _, hint, ok := strings.Cut(got, "hint: "); ok && test.image != iso {
				tree := t.TempDir()
				hint, _, _ = strings.Cut(hint, "\n")
				must(t, "sh", "-e", "-c", strings.Replace(hint, " /mnt", ` "$1"`, 1)+`; ls "$1"; umount "$1"`, "sh", tree)
			}
			umount(t, dir)

			r := run(t, cloopfs, slices.Concat([]string{"mount"}, test.flags, []string{url, dir})...)
			if r.code != 0 || r.stdout != "" || r.stderr != "" {
				t.Errorf("without a terminal: %v, want success without a word", r)
			}
			umount(t, dir)
		})
	}
}

// A user whom root can't follow is told so.
func TestFirstContactOfUser(t *testing.T) {
	dir := userDir(t)
	url := serveFile(t, need(t, small).image)
	r := startCmd(t, onTerminal(asNobody(cloopfs, "mount", url, dir))).result(t)
	want := "cloopfs: mounted at " + dir + ": disk.img, 8 MiB ext4\r\ncloopfs: hint: root can't loop-mount it without --allow-other\r\n"
	if r.code != 0 || r.stdout != want {
		t.Errorf("mount: %v, want %q", r, want)
	}
	if r := asUser(t, cloopfs, "umount", dir); r.code != 0 {
		t.Errorf("umount: %v", r)
	}
}

// That a loop device leaves out the end of a disk is said in any case; disk.img
// has all of it.
func TestOddSize(t *testing.T) {
	const more = 100
	f := need(t, small)
	file := filepath.Join(t.TempDir(), "odd.img")
	must(t, "cp", f.raw, file)
	must(t, "sh", "-c", `head -c "$2" /dev/urandom >>"$1"`, "sh", file, strconv.Itoa(more))
	size := sizeOf(t, file)
	url := serveFile(t, file)
	warning := "cloopfs: the disk's size is no multiple of 512: its last 100 bytes can't be read through a loop device\n"

	dir := makeDir(t)
	if got := mountOnTerminal(t, url, dir); !strings.HasPrefix(got, warning+"cloopfs: mounted at ") {
		t.Errorf("on a terminal: got %q, want %q first", got, warning)
	}
	umount(t, dir)
	r := run(t, cloopfs, "mount", url, dir)
	if r.code != 0 || r.stdout != "" || r.stderr != warning {
		t.Errorf("without a terminal: %v, want %q", r, warning)
	}
	must(t, "cmp", diskOf(dir), file)
	device := attach(t, diskOf(dir))
	if got := must(t, "blockdev", "--getsize64", device); got != strconv.FormatInt(size-more, 10)+"\n" {
		t.Errorf("the loop device has %q bytes: what the warning says is not so", got)
	}
	must(t, "losetup", "--detach", device)
	umount(t, dir)
}

// What can't be read soon is not waited for: the mount is there.
func TestFirstContactOfHungServer(t *testing.T) {
	f := need(t, small)
	srv, url := serve(t, nil)
	if err := srv.AddFile("disk.cloop", f.image); err != nil {
		t.Fatal(err)
	}
	srv.Set(func(c *testserver.Config) { c.Hang, c.HangFrom = testserver.HangBeforeHeaders, 1 })
	t.Cleanup(func() { unhang(srv) })
	dir := makeDir(t)
	var got string
	if took := elapsed(func() { got = mountOnTerminal(t, url, dir, "--timeout=60s") }); took > 8*time.Second {
		t.Errorf("mount took %v", took)
	}
	if want := "cloopfs: mounted at " + dir + ": disk.img, 8 MiB\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	unhang(srv)
	must(t, "cmp", diskOf(dir), f.raw)
	umount(t, dir)
}

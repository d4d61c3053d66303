//go:build integration

package test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// An overlay can't be on a file system without holes: that is said by name, and
// nothing is left there.
func TestOverlayWithoutHoles(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	_, url := serve(t, s.image)
	tests := []struct{ name, script string }{ // $1 is a file, $2 a directory
		{"FAT", `mkfs.vfat "$1" && fusefat -o rw+ "$1" "$2"`},
		{"NTFS by ntfs-3g", `mkntfs --quick --force --quiet "$1" && ntfs-3g -o umask=077 "$1" "$2"`},
	}
	// Debian's kernel has FAT, those of small virtual machines may not.
	if types, err := os.ReadFile("/proc/filesystems"); err != nil || strings.Contains(string(types), "\tvfat\n") {
		tests = append(tests, struct{ name, script string }{"FAT by the kernel", `mkfs.vfat "$1" && mount -o loop "$1" "$2"`})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			file, disk := filepath.Join(t.TempDir(), "file"), filepath.Join(t.TempDir(), "disk")
			must(t, "truncate", "--size=64M", file)
			must(t, "mkdir", disk)
			must(t, "sh", "-c", test.script, "sh", file, disk)
			t.Cleanup(func() {
				if !try("umount", disk) {
					t.Errorf("cleaning up: %s can't be unmounted", disk)
				}
			})
			before := must(t, "find", disk)
			there := filepath.Join(disk, "there")
			dir := makeDir(t)
			for _, overlay := range []string{filepath.Join(disk, "new"), there} {
				if overlay == there {
					must(t, "mkdir", there)
					before += there + "\n"
				}
				r := run(t, cloopfs, "mount", "--overlay", overlay, url, dir)
				checkFailure(t, r, 1, "open "+overlay+": its file system has no holes in files (FAT?)")
				if !strings.Contains(r.stderr, "cloopfs: hint: keep it on ext4") {
					t.Errorf("mount: %v, want a hint", r)
				}
				checkNoMount(t, dir)
				if after := must(t, "find", disk); after != before {
					t.Errorf("there were the files %q, and are %q", before, after)
				}
			}
		})
	}
}

// An overlay is its files: it can be moved with whatever moves files, even if that
// does not know holes.
func TestOverlayMoved(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(64, 4*kib)...)
	_, url := serve(t, s.image)
	overlay, flags := makeOverlay(t)
	dir := mount(t, url, flags...)
	w := openWriter(t, diskOf(dir))
	now := slices.Clone(s.disk)
	w.must(t, task{Op: "write", Off: 100_000, Data: noise(1, 300_000)})
	copy(now[100_000:], noise(1, 300_000))
	w.must(t, task{Op: "punch", Off: 50_001, Len: 200_000})
	clear(now[50_001:250_001])
	w.close(t)
	umount(t, dir)
	for _, test := range []struct{ name, script string }{ // $1 is the overlay, $2 where to
		{"mv", `cp -a "$1" "$2.first" && mv "$2.first" "$2"`},
		{"cp -a", `cp -a "$1" "$2"`},
		{"cp -r, without holes", `cp -r --sparse=never "$1" "$2"`},
		{"tar -S", `mkdir -m 700 "$2" && tar -C "$1" -cSf - . | tar -C "$2" -xf -`},
		{"tar", `mkdir -m 700 "$2" && tar -C "$1" -cf - . | tar -C "$2" -xf -`},
		{"to another disk", `mkdir "$2" && mount -t tmpfs -o mode=700 tmpfs "$2" && cp -a "$1/." "$2"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			moved := filepath.Join(t.TempDir(), "moved")
			must(t, "sh", "-e", "-c", test.script, "sh", overlay, moved)
			if mounted(moved) {
				t.Cleanup(func() { try("umount", moved) })
			}
			if was, is := overlayInfo(t, overlay, "changed"), overlayInfo(t, moved, "changed"); is != was {
				t.Errorf("overlay info says %s are changed, want %s", is, was)
			}
			want := slices.Clone(now)
			for range 2 {
				mountAt(t, url, dir, "--overlay", moved)
				checkBytes(t, "disk", must(t, "cat", diskOf(dir)), want)
				w := openWriter(t, diskOf(dir))
				w.must(t, task{Op: "write", Off: 240_000, Data: noise(2, 20_000)})
				copy(want[240_000:], noise(2, 20_000))
				w.must(t, task{Op: "punch", Off: 300_000, Len: 50_000})
				clear(want[300_000:350_000])
				w.close(t)
				umount(t, dir)
			}
		})
	}
	mountAt(t, url, dir, flags...)
	checkBytes(t, "what was copied", must(t, "cat", diskOf(dir)), now)
	umount(t, dir)
}

// An overlay is refused over another image than its own, and over its own when that
// was changed, as its date says. Where the image is does not matter.
func TestOverlayOtherBase(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	_, url := serve(t, s.image)
	overlay, flags := makeOverlay(t)
	dir := mount(t, url, flags...)
	w := openWriter(t, diskOf(dir))
	now := slices.Clone(s.disk)
	w.must(t, task{Op: "write", Off: 1234, Data: noise(1, 5678)})
	copy(now[1234:], noise(1, 5678))
	w.close(t)
	umount(t, dir)

	copied := writeTemp(t, s.image)
	if err := os.Chtimes(copied, time.Time{}, lastModified); err != nil {
		t.Fatal(err)
	}
	_, elsewhere := serve(t, s.image)
	for _, source := range []string{copied, elsewhere, url} {
		mountAt(t, source, dir, flags...)
		checkBytes(t, "disk over "+source, must(t, "cat", diskOf(dir)), now)
		umount(t, dir)
	}

	touched := writeTemp(t, s.image)
	larger := makeImage(t, 64*kib, blocks(17, 4*kib)...)
	for _, test := range []struct{ name, source, want string }{
		{"touched", touched, "its content or its date is another"},
		{"larger", writeTemp(t, larger.image), "its disk has 1048576 bytes, this one 1114112"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := run(t, cloopfs, "mount", "--overlay", overlay, test.source, dir)
			checkFailure(t, r, 1, "open "+overlay+": the overlay was made for another image: "+test.want)
			if !strings.Contains(r.stderr, "cloopfs: hint: mount the image that it was made for") {
				t.Errorf("mount: %v, want a hint", r)
			}
			checkNoMount(t, dir)
		})
	}
	mountAt(t, url, dir, flags...)
	checkBytes(t, "disk in the end", must(t, "cat", diskOf(dir)), now)
	umount(t, dir)
}

// A touched local image is another one for an overlay that was made over it.
func TestOverlayTouchedBase(t *testing.T) {
	path := writeTemp(t, noise(1, mib))
	_, flags := makeOverlay(t, "--format", "raw")
	dir := mount(t, path, flags...)
	umount(t, dir)
	mountAt(t, path, dir, flags...)
	umount(t, dir)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	must(t, "touch", "--date=2001-02-03", path)
	r := run(t, cloopfs, slices.Concat([]string{"mount"}, flags, []string{path, dir})...)
	checkFailure(t, r, 1, "the overlay was made for another image: its content or its date is another")
	checkNoMount(t, dir)
	if err := os.Chtimes(path, time.Time{}, info.ModTime()); err != nil {
		t.Fatal(err)
	}
	mountAt(t, path, dir, flags...)
	umount(t, dir)
}

// An overlay has one user at a time, for whom nothing changes when others try.
func TestOverlayInUse(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	_, url := serve(t, s.image)
	overlay, flags := makeOverlay(t)
	dir, other := mount(t, url, flags...), makeDir(t)
	w := openWriter(t, diskOf(dir))
	w.must(t, task{Op: "write", Off: 1234, Data: noise(1, 5678)})
	now := slices.Clone(s.disk)
	copy(now[1234:], noise(1, 5678))
	if got := overlayInfo(t, overlay, "state"); got != "in use" {
		t.Errorf("overlay info says %q, want that it is in use", got)
	}
	second := start(t, cloopfs, slices.Concat([]string{"mount"}, flags, []string{url, other})...)
	discard := start(t, cloopfs, "overlay", "discard", overlay)
	for _, p := range []*process{second, discard} {
		r := p.result(t)
		checkFailure(t, r, 1, "open "+overlay+": the overlay is in use")
		if !strings.Contains(r.stderr, "cloopfs: hint: cloopfs status ") {
			t.Errorf("%s: %v, want a hint", p.name, r)
		}
	}
	checkNoMount(t, other)
	checkBytes(t, "disk", string(w.must(t, task{Op: "read", Len: int64(len(now))}).Data), now)
	w.must(t, task{Op: "write", Off: 9999, Data: noise(2, 5678)})
	copy(now[9999:], noise(2, 5678))
	w.must(t, task{Op: "fsync"})
	w.close(t)
	umount(t, dir)
	mountAt(t, url, other, flags...)
	checkBytes(t, "disk", must(t, "cat", diskOf(other)), now)
	umount(t, other)
	must(t, cloopfs, "overlay", "discard", overlay)
	mountAt(t, url, other, flags...)
	checkBytes(t, "disk after discard", must(t, "cat", diskOf(other)), s.disk)
	umount(t, other)
}

// umount(8) does not wait for the last flush. Whoever wants the overlay next does.
func TestOverlayRightAfterUmount(t *testing.T) {
	const size = 64 * mib
	s := makeImage(t, 64*kib, blocks(size/(64*kib), 0)...)
	_, url := serve(t, s.image)
	overlay, flags := makeOverlay(t)
	dir := mount(t, url, flags...)
	overlapped := 0
	for round := range 3 {
		w := openWriter(t, diskOf(dir))
		written := noise(uint64(round), size)
		w.must(t, task{Op: "write", Data: written})
		w.close(t)
		old := daemon(t, dir)
		must(t, "umount", dir)
		if arguments(old) != nil {
			overlapped++
		}
		mountAt(t, url, dir, flags...)
		checkBytes(t, "disk", must(t, "cat", diskOf(dir)), written)
		waitFor(t, "the old process has ended", func() bool { return arguments(old) == nil })
	}
	umount(t, dir)
	if got := overlayInfo(t, overlay, "state"); got != "clean" {
		t.Errorf("overlay info says %q, want clean", got)
	}
	if overlapped == 0 {
		t.Error("each process had ended before the next was started: this test has found out nothing")
	}
	mountAt(t, url, dir, flags...)
	must(t, "umount", dir)
	must(t, cloopfs, "overlay", "discard", overlay)
	waitFor(t, "the process has ended", func() bool { return len(daemons(dir)) == 0 })
}

// What is in a writable mount, and what status says of it.
func TestOverlayStatus(t *testing.T) {
	d := needDisk(t, gptDisk)
	url := serveFile(t, d.image)
	overlay, flags := makeOverlay(t)
	dir := mount(t, url, flags...)
	if got := must(t, "ls", "-A", dir); got != "disk.img\n" {
		t.Errorf("ls prints %q, want disk.img alone", got)
	}
	if r := run(t, "stat", d.parts[0].file(dir)); !strings.Contains(r.stderr, "No such file") {
		t.Errorf("a partition's file: %v, want no such file", r)
	}
	if got := must(t, "stat", "--format=%a", dir, diskOf(dir)); got != "700\n600\n" {
		t.Errorf("modes are %q, want 700 and 600", got)
	}
	st := statusOf(t, dir)
	if st.Writes == nil || st.Overlay == nil || st.Writes.Count != 0 || st.Overlay.Path != overlay || st.Overlay.Changed != 0 || st.Overlay.Flushing {
		t.Fatalf("status says %+v, %+v; want an overlay without changes", st.Writes, st.Overlay)
	}
	w := openWriter(t, diskOf(dir))
	for range 2 {
		w.must(t, task{Op: "write", Off: mib, Data: noise(1, 5000)})
	}
	w.must(t, task{Op: "punch", Off: 2 * mib, Len: mib})
	w.must(t, task{Op: "fsync"})
	w.fails(t, task{Op: "write", Off: 24 * mib, Data: noise(1, 1)})
	w.close(t)
	st = statusOf(t, dir)
	if st.Writes.Count != 2 || st.Writes.Bytes != 10000 || st.Writes.Flushes != 1 || st.Writes.Errors != 0 || st.Overlay.Changed != mib+2*pageSize {
		t.Errorf("status says %+v, %+v; want 2 writes of 10000 bytes, 1 flush, no errors, 1 MiB and two clusters changed", *st.Writes, *st.Overlay)
	}
	out := must(t, cloopfs, "status", dir)
	for _, want := range []string{"writes      2, 9.8 KiB; 1 flushes, 0 failed\n", "overlay     1 MiB changed, in " + overlay + "\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("status prints %q, want %q in it", out, want)
		}
	}
	umount(t, dir)
	if got := overlayInfo(t, overlay, "changed"); got != "1 MiB (1056768 bytes)" {
		t.Errorf("overlay info says %q are changed, want %d bytes", got, mib+2*pageSize)
	}

	for _, test := range []struct {
		flags []string
		modes string
	}{
		{[]string{"--allow-other"}, "755\n644\n"},
		{[]string{"--mode", "0640"}, "750\n640\n"},
	} {
		mountAt(t, url, dir, append(test.flags, flags...)...)
		if got := must(t, "stat", "--format=%a", dir, diskOf(dir)); got != test.modes {
			t.Errorf("with %v modes are %q, want %q", test.flags, got, test.modes)
		}
		umount(t, dir)
	}
	// A read-only mount has neither.
	mountAt(t, url, dir)
	if st := statusOf(t, dir); st.Writes != nil || st.Overlay != nil {
		t.Errorf("status of a read-only mount says %+v, %+v", st.Writes, st.Overlay)
	}
	umount(t, dir)
}

// Others may read a mount with --allow-other, and not write to it.
func TestOverlayOfOthers(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	_, url := serve(t, s.image)
	dir := openDir(t)
	_, flags := makeOverlay(t, "--allow-other")
	mountAt(t, url, dir, flags...)
	checkBytes(t, "disk", asUser(t, "cat", diskOf(dir)).stdout, s.disk)
	if r := asUser(t, "dd", "if=/dev/zero", "of="+diskOf(dir), "conv=notrunc", "count=1"); r.code == 0 || !strings.Contains(r.stderr, "Permission denied") {
		t.Errorf("writing as another user: %v, want permission denied", r)
	}
	umount(t, dir)
}

// What is written to a partition alone is at its place on the whole disk.
func TestOverlayPartition(t *testing.T) {
	d := needDisk(t, gptDisk)
	url := serveFile(t, d.image)
	_, flags := makeOverlay(t)
	dir := makeDir(t)
	p := d.parts[1]
	now, err := os.ReadFile(d.raw)
	if err != nil {
		t.Fatal(err)
	}
	part := now[p.off:][:p.size]
	mountAt(t, url, dir, append(flags, "--partition", "3")...)
	w := openWriter(t, diskOf(dir))
	for i, off := range []int64{0, 123_456, int64(p.size) - 5000} {
		piece := noise(uint64(i), 5000)
		w.must(t, task{Op: "write", Off: off, Data: piece})
		copy(part[off:], piece)
	}
	w.must(t, task{Op: "punch", Off: mib, Len: 100_000})
	clear(part[mib : mib+100_000])
	// The next partition begins here.
	if e := w.fails(t, task{Op: "write", Off: int64(p.size), Data: noise(1, 5000)}); e != syscall.ENOSPC {
		t.Errorf("writing behind the partition: %v, want ENOSPC", e)
	}
	if e := w.fails(t, task{Op: "punch", Off: int64(p.size) - 5000, Len: 5001}); e != syscall.EFBIG {
		t.Errorf("punching beyond the partition: %v, want EFBIG", e)
	}
	w.must(t, task{Op: "fsync"})
	w.close(t)
	checkBytes(t, "partition", must(t, "cat", diskOf(dir)), part)
	umount(t, dir)

	mountAt(t, url, dir, flags...)
	checkBytes(t, "disk", must(t, "cat", diskOf(dir)), now)
	w = openWriter(t, diskOf(dir))
	w.must(t, task{Op: "write", Off: int64(p.off) + 777, Data: noise(4, 9999)})
	copy(part[777:], noise(4, 9999))
	w.must(t, task{Op: "write", Off: int64(p.off + p.size), Data: noise(5, 9999)}) // of the next
	w.close(t)
	umount(t, dir)

	mountAt(t, url, dir, append(flags, "--partition", "3")...)
	checkBytes(t, "partition", must(t, "cat", diskOf(dir)), part)
	umount(t, dir)
}

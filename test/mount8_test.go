//go:build integration

package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mount(8) mounts the types cloopfs and fuse.cloopfs, and umount(8) ends it.
func TestMount8(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	m := newMachine(t)
	for _, fsType := range []string{"cloopfs", "fuse.cloopfs"} {
		t.Run(fsType, func(t *testing.T) {
			dir := makeDir(t)
			m.must(t, "mount", "-t", fsType, url, dir, "-o", "timeout=5,mode=0440,noatime")
			m.checkMounted(t, url, dir, s.disk)
			if got := strings.TrimSpace(m.must(t, "stat", "--format=%a", diskOf(dir))); got != "440" {
				t.Errorf("mode is %s, want 440", got)
			}
			want := []string{"cloopfs", "mount", "--mode=0440", "--timeout=5s", url, dir}
			if got := arguments(daemon(t, dir)); !slices.Equal(got, want) {
				t.Errorf("arguments are %q, want %q", got, want)
			}
			r := m.run(t, "mount", "-o", "remount,noatime", dir)
			checkFailure(t, r, 1, "-o remount: a mount can't be changed")
			checkFailure(t, m.run(t, "mount", "-t", fsType, url, dir), 32, "already a cloopfs mount")
			m.umount(t, dir)
		})
	}
}

// What mount(8) is told to do goes through it to the program, and the exit
// status comes back.
func TestMount8Arguments(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	refusing := "http://127.0.0.1:" + strconv.Itoa(freePort(t)) + "/disk.cloop"
	m := newMachine(t)
	dir := makeDir(t)
	tests := []struct {
		name string
		args []string
		code int
		want string // in the message
	}{
		{"unknown option", []string{url, "-o", "colour=geheim"}, 1, "-o colour: unknown option"},
		{"bad value", []string{url, "-o", `timeout="ge,heim"`}, 1, "-o timeout: not a duration"},
		{"no URL", []string{"ftp://127.0.0.1/disk.cloop"}, 1, "not an http or https URL"},
		{"ro and overlay", []string{url, "-o", "ro,overlay=/tmp/o"}, 1, "ro and a disk that can be written to"},
		{"ro and ephemeral, sloppy", []string{url, "-o", "ro,ephemeral", "-s"}, 1, "ro and a disk that can be written to"},
		{"404", []string{url + ".missing"}, 32, "404"},
		{"unreachable", []string{refusing, "-o", "timeout=1"}, 32, "refused"},
		{"not an image", []string{cloopfs}, 32, "neither a cloop image nor"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, fsType := range []string{"cloopfs", "fuse.cloopfs"} {
				if fsType == "fuse.cloopfs" && slices.Contains(test.args, "-s") {
					continue // mount.fuse(8) does not hand it on
				}
				r := m.run(t, "mount", append([]string{"-t", fsType, "--target", dir, "--source"}, test.args...)...)
				checkFailure(t, r, test.code, test.want)
				if strings.Contains(r.stderr, "heim") {
					t.Errorf("a secret is in the message %q", r.stderr)
				}
				if got := m.mounted(t, dir); got != "" {
					t.Fatalf("mounted: %s", got)
				}
			}
		})
	}
	t.Run("fake", func(t *testing.T) {
		m.must(t, "mount", "-f", "-t", "cloopfs", url, dir)
		checkFailure(t, m.run(t, "mount", "-f", "-t", "cloopfs", "-o", "colour", url, dir), 1, "-o colour: unknown option")
		if got := m.mounted(t, dir); got != "" {
			t.Errorf("mounted: %s", got)
		}
	})
	t.Run("sloppy, verbose, no mtab", func(t *testing.T) {
		m.must(t, "mount", "-s", "-n", "-v", "-t", "cloopfs", "-o", "colour=red", url, dir)
		m.checkMounted(t, url, dir, s.disk)
		if got := arguments(daemon(t, dir)); !slices.Contains(got, "--verbose=true") {
			t.Errorf("arguments are %q, want --verbose=true among them", got)
		}
		m.umount(t, dir)
	})
	t.Run("file", func(t *testing.T) {
		file := filepath.Join(filepath.Dir(dir), "disk.cloop")
		if err := os.WriteFile(file, s.image, 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := m.command("sh", "-c", `cd "$1" && mount -t cloopfs disk.cloop mnt`, "sh", filepath.Dir(dir))
		if r := startCmd(t, cmd).result(t); r.code != 0 || r.stderr != "" {
			t.Fatalf("mount: %v, want success without a word", r)
		}
		m.checkMounted(t, file, dir, s.disk)
		m.umount(t, dir)
	})
}

// mount -N mounts in another namespace, and only there.
func TestMount8Namespace(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	m, other := newMachine(t), newMachine(t)
	dir := makeDir(t)
	m.must(t, "mount", "-N", strconv.Itoa(other.pid), "-t", "cloopfs", "-o", "quiet", url, dir)
	other.checkMounted(t, url, dir, s.disk)
	if got := m.mounted(t, dir); got != "" {
		t.Errorf("mounted here too: %s", got)
	}
	other.umount(t, dir)
}

// A line in /etc/fstab is enough for mount(8), which knows what is mounted.
func TestFstab(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	m := newMachine(t)
	image := filepath.Join(t.TempDir(), "disk.cloop")
	if err := os.WriteFile(image, s.image, 0o644); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(filepath.Dir(image), "link")
	if err := os.Symlink(image, link); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		line    string // with a place for the mountpoint
		source  string // that is shown
		fsTypes []string
	}{
		{"URL", url + " %s TYPE _netdev,nofail,memory=1M 0 0", url, []string{"cloopfs", "fuse.cloopfs"}},
		{"options for others", url + " %s TYPE defaults,nosuid,x-systemd.requires=a.service,comment=b 0 0", url, []string{"cloopfs", "fuse.cloopfs"}},
		{"quoted", url + ` %s TYPE log_file="` + filepath.Dir(image) + `/a\040log,b",quiet 0 0`, url, []string{"cloopfs"}},
		{"file", image + " %s TYPE defaults 0 0", image, []string{"cloopfs", "fuse.cloopfs"}},
		{"link to a file", link + " %s TYPE defaults 0 0", image, []string{"cloopfs", "fuse.cloopfs"}},
	}
	for _, test := range tests {
		for _, fsType := range test.fsTypes {
			t.Run(test.name+", "+fsType, func(t *testing.T) {
				dir := makeDir(t)
				m.writeFstab(t, fmt.Sprintf(strings.ReplaceAll(test.line, "TYPE", fsType), dir))
				m.must(t, "mount", dir)
				m.checkMounted(t, test.source, dir, s.disk)
				m.umount(t, dir)
				m.must(t, "mount", "-a")
				m.checkMounted(t, test.source, dir, s.disk)
				if said := m.must(t, "mount", "-a", "-v"); !strings.Contains(said, "already mounted") {
					t.Errorf("mount -a says %q, want that it is mounted", said)
				}
				m.umount(t, dir)
			})
		}
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(image), "a log,b")); err != nil {
		t.Errorf("a quoted name: %v", err)
	}
}

// Two lines are enough for the file system in an image.
func TestFstabLoop(t *testing.T) {
	f := need(t, small)
	url := serveFile(t, f.image)
	m := newMachine(t)
	dir, tree := makeDir(t), makeDir(t)
	m.writeFstab(t,
		url+" "+dir+" cloopfs _netdev,nofail 0 0",
		diskOf(dir)+" "+tree+" ext4 loop,ro,_netdev,nofail 0 0",
	)
	m.must(t, "mount", "-a")
	m.must(t, "mount", "-a")
	device, fsType, _ := strings.Cut(m.mounted(t, tree), " ")
	if fsType != "ext4" || loopDevices()[device] != diskOf(dir) {
		t.Errorf("%s (%s) is mounted, want ext4 in %s", device, fsType, diskOf(dir))
	}
	files, err := os.ReadFile(f.files)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.must(t, "sh", "-c", listScript, "sh", tree); got != string(files) {
		t.Errorf("the files are\n%swant\n%s", got, files)
	}
	m.must(t, "umount", tree)
	waitFor(t, "the loop device is free", func() bool { return loopDevices()[device] != diskOf(dir) })
	m.umount(t, dir)
}

// What a line in /etc/fstab can't have is refused, and noauto is left to whoever
// asks for it.
func TestFstabRefused(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	m := newMachine(t)
	dir := makeDir(t)

	m.writeFstab(t, url+" "+dir+" cloopfs noauto,ro,overlay=/tmp/o 0 0")
	m.must(t, "mount", "-a")
	checkFailure(t, m.run(t, "mount", dir), 1, "ro and a disk that can be written to")
	m.writeFstab(t, url+" "+dir+" cloopfs noauto 0 0")
	m.must(t, "mount", "-a")
	if got := m.mounted(t, dir); got != "" {
		t.Fatalf("mounted: %s", got)
	}
	m.must(t, "mount", dir)
	m.checkMounted(t, url, dir, s.disk)
	checkFailure(t, m.run(t, "mount", "-o", "remount", dir), 1, "-o remount: a mount can't be changed")
	m.umount(t, dir)
}

// mount -a compares the line with /proc/self/mountinfo, which shows no password
// and no query: it takes such a mount for another, and is told that it is there.
func TestFstabSecrets(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	m := newMachine(t)
	for _, source := range []string{url + "?version=2", strings.Replace(url, "://", "://user:geheim@", 1)} {
		dir := makeDir(t)
		m.writeFstab(t, source+" "+dir+" cloopfs _netdev 0 0")
		m.must(t, "mount", "-a")
		r := m.run(t, "mount", "-a")
		checkFailure(t, r, 32, "already a cloopfs mount")
		if got := m.mounted(t, dir); strings.Contains(r.stderr+got, "geheim") || !strings.HasSuffix(got, " fuse.cloopfs") {
			t.Errorf("mounted: %q, message: %q; want one mount, and no secret", got, r.stderr)
		}
		checkBytes(t, "disk", m.must(t, "cat", diskOf(dir)), s.disk)
		m.umount(t, dir)
	}
}

// With the option user a user without rights can mount what the line says, and
// unmount it.
func TestFstabUser(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	m := newMachine(t)
	dir := userDir(t)
	m.writeFstab(t, url+" "+dir+" cloopfs user,noauto 0 0")
	asUser := func(name string, args ...string) result {
		cmd := asNobody(name, args...)
		inside := m.command(cmd.Args[0], cmd.Args[1:]...)
		inside.Env = cmd.Env
		return startCmd(t, inside).result(t)
	}
	if r := asUser("mount", dir); r.code != 0 || r.stderr != "" {
		t.Fatalf("mount: %v, want success without a word", r)
	}
	checkBytes(t, "disk", asUser("cat", diskOf(dir)).stdout, s.disk)
	if r := asUser("umount", dir); r.code != 0 || r.stderr != "" {
		t.Fatalf("umount: %v, want success without a word", r)
	}
	waitFor(t, "the process has ended", func() bool { return len(daemons(dir)) == 0 })
}

//go:build integration

package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// machine is a mount namespace where the program is installed: /sbin holds it as
// cloopfs and as mount.cloopfs, and /etc/fstab is a file of the test's own. All
// of that is gone with the namespace, however the test ends.
type machine struct {
	pid   int    // of a process that is in it
	fstab string // its /etc/fstab
}

// machineScript makes the namespace it runs in a machine. /sbin becomes a
// directory of links to what it was.
const machineScript = `set -e
cd "$1"
mkdir tools sbin
mount --bind /sbin tools
ln -s "$PWD"/tools/* sbin
for name in cloopfs mount.cloopfs; do ln -sf "$2" sbin/$name; done
mount --bind sbin /sbin
mount --bind fstab /etc/fstab
mkdir -p /run/mount
mount -t tmpfs notes /run/mount
echo ready
exec sleep infinity`

func newMachine(t *testing.T) *machine {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "machine-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // for other users
		t.Fatal(err)
	}
	m := &machine{fstab: filepath.Join(dir, "fstab")}
	m.writeFstab(t, "")
	ready := filepath.Join(dir, "ready")
	out, err := os.Create(ready)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", machineScript, "sh", dir, cloopfs)
	cmd.Stdout = out
	p := startCmd(t, cmd)
	m.pid = p.pid()
	waitFor(t, "the namespace is ready", func() bool {
		if !p.running() {
			t.Fatalf("no namespace: %v", p.result(t))
		}
		said, err := os.ReadFile(ready)
		return err == nil && len(said) > 0
	})
	return m
}

// command is a command that runs on the machine.
func (m *machine) command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{fmt.Sprintf("--mount=/proc/%d/ns/mnt", m.pid), "--", name}, args...)...)
}

func (m *machine) run(t *testing.T, name string, args ...string) result {
	t.Helper()
	return startCmd(t, m.command(name, args...)).result(t)
}

// must runs a command that has to succeed, and returns what it printed.
func (m *machine) must(t *testing.T, name string, args ...string) string {
	t.Helper()
	r := m.run(t, name, args...)
	if r.code != 0 || r.stderr != "" {
		t.Fatalf("%s %s: %v, want success without a word", name, strings.Join(args, " "), r)
	}
	return r.stdout
}

// writeFstab replaces the lines of /etc/fstab.
func (m *machine) writeFstab(t *testing.T, lines ...string) {
	t.Helper()
	// The file stays the same: it is mounted.
	if err := os.WriteFile(m.fstab, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// mounted is what findmnt(8) says of dir: source and type, or nothing.
func (m *machine) mounted(t *testing.T, dir string) string {
	t.Helper()
	return strings.TrimSpace(m.run(t, "findmnt", "--noheadings", "--raw", "--output", "SOURCE,FSTYPE", "--mountpoint", dir).stdout)
}

// checkMounted checks that the image at url is mounted at dir, and can be read.
func (m *machine) checkMounted(t *testing.T, url, dir string, disk []byte) {
	t.Helper()
	if got, want := m.mounted(t, dir), url+" fuse.cloopfs"; got != want {
		t.Fatalf("findmnt says %q, want %q", got, want)
	}
	checkBytes(t, "disk", m.must(t, "cat", diskOf(dir)), disk)
}

// umount unmounts dir with umount(8) and waits for the process's end.
func (m *machine) umount(t *testing.T, dir string) {
	t.Helper()
	m.must(t, "umount", dir)
	waitFor(t, "the process has ended", func() bool { return len(daemons(dir)) == 0 })
	if got := m.mounted(t, dir); got != "" {
		t.Fatalf("%s is still mounted: %s", dir, got)
	}
}

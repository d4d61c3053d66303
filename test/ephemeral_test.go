//go:build integration

package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// What was written with --ephemeral is gone with the mount, however it ends: no file
// of it has ever had a name in $TMPDIR, its room is given back, and the base is what
// it was.
func TestEphemeral(t *testing.T) {
	const size = 8 * mib
	s := makeImage(t, 64*kib, blocks(size/(64*kib), 20*kib)...)
	_, url := serve(t, s.image)
	raw := filepath.Join(t.TempDir(), "raw.img")
	if err := os.WriteFile(raw, s.disk, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, base := range []struct {
		name, source string
		flags        []string
	}{
		{"cloop over HTTP", url, nil},
		{"raw file", raw, []string{"--format", "raw"}},
	} {
		for _, killed := range []bool{false, true} {
			name := base.name + ", unmounted"
			if killed {
				name = base.name + ", killed"
			}
			t.Run(name, func(t *testing.T) {
				tmp := makeTmpfs(t, "64m")
				free := freeIn(t, tmp)
				dir := makeDir(t)
				cmd := exec.Command(cloopfs, slices.Concat([]string{"mount", "--ephemeral"}, base.flags, []string{base.source, dir})...)
				cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
				if r := startCmd(t, cmd).result(t); r.code != 0 || r.stderr != "" {
					t.Fatalf("mount: %v, want success without a word", r)
				}
				w := openWriter(t, diskOf(dir))
				now := slices.Clone(s.disk)
				written := noise(1, 3*mib+777)
				w.must(t, task{Op: "write", Off: 1234, Data: written})
				copy(now[1234:], written)
				w.must(t, task{Op: "punch", Off: 5000, Len: mib})
				clear(now[5000 : 5000+mib])
				w.must(t, task{Op: "fsync"})
				w.close(t)
				checkBytes(t, "disk", must(t, "cat", diskOf(dir)), now)

				if taken := free - freeIn(t, tmp); taken < 2*mib {
					t.Errorf("%d bytes of $TMPDIR are taken, want those that were written: it is not used", taken)
				}
				if names := must(t, "ls", "-A", tmp); names != "" {
					t.Errorf("in $TMPDIR there is %q, want nothing", names)
				}
				if files := openFiles(t, daemon(t, dir), tmp); len(files) != 1 || !strings.HasSuffix(files[0], " (deleted)") {
					t.Errorf("the process has %q open, want a file without a name", files)
				}
				st := statusOf(t, dir)
				if st.Overlay == nil || st.Overlay.Path != "" || st.Overlay.Changed < 3*mib || st.Overlay.Flushing {
					t.Errorf("status says %+v, want an overlay without a path", st.Overlay)
				}
				if out := must(t, cloopfs, "status", dir); !strings.Contains(out, "3 MiB changed, not to be kept") {
					t.Errorf("status prints %q, want what was changed", out)
				}

				if killed {
					killDaemon(t, dir)
				}
				umount(t, dir)
				if left := freeIn(t, tmp); left != free {
					t.Errorf("%d bytes of $TMPDIR are free, want %d as before", left, free)
				}
				if names := must(t, "ls", "-A", tmp); names != "" {
					t.Errorf("in $TMPDIR there is %q, want nothing", names)
				}
				mountAt(t, base.source, dir, base.flags...)
				checkBytes(t, "base", must(t, "cat", diskOf(dir)), s.disk)
				umount(t, dir)
			})
		}
	}
	if content, err := os.ReadFile(raw); err != nil || string(content) != string(s.disk) {
		t.Errorf("the local image has been written to, or can't be read: %v", err)
	}
}

// Where $TMPDIR can't be used the mount fails and says so. Without it /var/tmp is taken.
func TestEphemeralTMPDIR(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 20*kib)...)
	_, url := serve(t, s.image)
	dir := makeDir(t)
	with := func(tmp string) result {
		cmd := exec.Command(cloopfs, "mount", "--ephemeral", url, dir)
		cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "TMPDIR=") })
		if tmp != "" {
			cmd.Env = append(cmd.Env, "TMPDIR="+tmp)
		}
		return startCmd(t, cmd).result(t)
	}
	checkFailure(t, with("/no/such/directory"), 1, "/no/such/directory: no such file or directory")
	checkNoMount(t, dir)
	if r := with(""); r.code != 0 || r.stderr != "" {
		t.Fatalf("mount: %v, want success without a word", r)
	}
	if files := openFiles(t, daemon(t, dir), "/var/tmp"); len(files) != 1 {
		t.Errorf("the process has %q open in /var/tmp, want one file", files)
	}
	umount(t, dir)
}

// freeIn is how many bytes of the file system at dir are free.
func freeIn(t *testing.T, dir string) int64 {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bfree) * st.Bsize
}

// openFiles lists the files below dir that a process has open.
func openFiles(t *testing.T, pid int, dir string) (files []string) {
	t.Helper()
	links, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if file, err := os.Readlink(link); err == nil && within(file, dir) {
			files = append(files, file)
		}
	}
	return files
}

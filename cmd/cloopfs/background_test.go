package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/line"
)

// What ps(1) shows: the flags that were given, no secrets, and the mountpoint as
// it is known to the system.
func TestBackgroundArgs(t *testing.T) {
	const source = "http://user:SECRET@h/f?token=SECRET"
	for _, c := range []struct {
		source string
		typed  []string
		want   []string
	}{
		{source, nil, []string{"cloopfs", "mount", "http://h/f?token", "/w/mnt"}},
		{"http://h/f", nil, []string{"cloopfs", "mount", "http://h/f", "/w/mnt"}},
		{"http://user:SECRET/x@h/f", nil, []string{"cloopfs", "mount", "SOURCE", "/w/mnt"}},
		{
			source,
			[]string{source, "mnt", "--memory", "1G", "-v", "--timeout=5"},
			[]string{"cloopfs", "mount", "--memory=1GiB", "--timeout=5s", "--verbose=true", "http://h/f?token", "/w/mnt"},
		},
	} {
		cmd := newMountCmd()
		if err := cmd.ParseFlags(c.typed); err != nil {
			t.Fatal(err)
		}
		got := backgroundArgs(cmd.Flags(), mountOptions{DiskOptions: DiskOptions{Source: line.Location{URL: c.source}}, Mountpoint: "/w/mnt"})
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("arguments of %q (-want +got):\n%s", c.typed, diff)
		}
	}
}

// The arguments of the background process name the file inside, and no secret.
func TestBackgroundArgsOfFileInside(t *testing.T) {
	l, err := line.Parse("http://user:geheim@h/k.iso?geheim2=geheim#KNOPPIX/a%20b")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(backgroundArgs(newMountCmd().Flags(), mountOptions{DiskOptions: DiskOptions{Source: l}, Mountpoint: "/mnt"}), " ")
	if want := "cloopfs mount http://h/k.iso?geheim2#KNOPPIX/a%20b /mnt"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Whatever was inherited is kept from other programs, but for the standard descriptors.
func TestKeepFromPrograms(t *testing.T) {
	for name, keep := range map[string]func() error{"at once": keepFromPrograms, "one by one": keepEachFromPrograms} {
		t.Run(name, func(t *testing.T) {
			inherited, err := unix.Dup(0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(inherited)
			if err := keep(); err != nil {
				t.Fatal(err)
			}
			for fd, want := range map[int]int{0: 0, 1: 0, 2: 0, inherited: unix.FD_CLOEXEC} {
				if got, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || got != want {
					t.Errorf("flags of descriptor %d: %d, %v; want %d", fd, got, err, want)
				}
			}
		})
	}
}

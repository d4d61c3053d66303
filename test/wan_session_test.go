//go:build integration

package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a command of a session may take, or a process to be ready.
const patience = 5 * time.Minute

// session is one use of a peer, in a directory of its own. All that was started and
// mounted for it goes with end.
type session struct {
	dir  string
	undo []func() // to be called in reverse
}

func newSession(t testing.TB) *session {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "session-")
	if err != nil {
		t.Fatal(err)
	}
	s := &session{dir: dir}
	t.Cleanup(s.end)
	return s
}

// end ends all that the session has started, the last first. Calling it again does
// nothing.
func (s *session) end() {
	for _, undo := range slices.Backward(s.undo) {
		undo()
	}
	s.undo = nil
	s.abort()
	for _, point := range slices.Backward(s.mounts()) {
		try("umount", "--lazy", point)
	}
	if len(s.mounts()) == 0 {
		_ = os.RemoveAll(s.dir)
	}
}

// path is that of a file in the session's directory.
func (s *session) path(name string) string { return filepath.Join(s.dir, name) }

// mkdir makes a directory for a mount.
func (s *session) mkdir(name string) (string, error) {
	return s.path(name), os.Mkdir(s.path(name), 0o755)
}

// mounts lists what is mounted in the session's directory, the oldest first.
func (s *session) mounts() []string {
	return slices.DeleteFunc(mountpoints(""), func(point string) bool { return !within(point, s.dir) })
}

// abort makes all reads fail that wait for a FUSE server of the session.
func (s *session) abort() {
	for _, point := range s.mounts() {
		_ = unix.Unmount(point, unix.MNT_FORCE|unix.UMOUNT_NOFOLLOW) // fails as it is in use, and aborts
	}
}

// run runs a command to its end.
func (s *session) run(name string, args ...string) (stdout string, err error) {
	p, err := launch(exec.Command(name, args...))
	if err != nil {
		return "", err
	}
	if !p.endsWithin(patience) {
		p.kill()
		s.abort()
		return "", fmt.Errorf("%s: not done after %v", p.name, patience)
	}
	if p.err != nil || !p.cmd.ProcessState.Success() {
		return "", fmt.Errorf("%s: %w %v: %s", p.name, p.err, p.cmd.ProcessState, brief(p.stderr.String()))
	}
	return p.stdout.String(), nil
}

// serve starts a process that runs until the session's end, and waits until it is
// ready.
func (s *session) serve(ready func() bool, name string, args ...string) error {
	p, err := launch(exec.Command(name, args...))
	if err != nil {
		return err
	}
	s.undo = append(s.undo, func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		if !p.endsWithin(5 * time.Second) {
			p.kill()
			p.endsWithin(5 * time.Second)
		}
	})
	for deadline := time.Now().Add(patience); !ready(); time.Sleep(2 * time.Millisecond) {
		if !p.running() {
			return fmt.Errorf("%s has ended: %s", p.name, brief(p.stderr.String()))
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not ready after %v", p.name, patience)
		}
	}
	return nil
}

// mount is serve for a process that mounts something at point.
func (s *session) mount(point, name string, args ...string) error {
	err := s.serve(func() bool { return mounted(point) }, name, args...)
	s.unmountLater(point)
	return err
}

// unmountLater has point unmounted at the session's end.
func (s *session) unmountLater(point string) {
	s.undo = append(s.undo, func() {
		for deadline := time.Now().Add(5 * time.Second); mounted(point) && time.Now().Before(deadline); {
			if !try("umount", point) {
				time.Sleep(50 * time.Millisecond)
			}
		}
	})
}

// attach makes file a block device.
func (s *session) attach(file string) (device string, err error) {
	out, err := s.run("losetup", "--read-only", "--find", "--show", file)
	if err != nil {
		return "", err
	}
	device = strings.TrimSpace(out)
	attached.Store(device, file)
	s.undo = append(s.undo, func() {
		if try("losetup", "--detach", device) {
			detachedSoon(device)
		}
	})
	return device, nil
}

// loop mounts the ext4 file system in file through a loop device, and returns where.
func (s *session) loop(file string) (dir string, err error) {
	if dir, err = s.mkdir("fs"); err != nil {
		return "", err
	}
	device, err := s.attach(file)
	if err != nil {
		return "", err
	}
	_, err = s.run("mount", "-t", "ext4", "-o", "ro,noload", device, dir)
	s.unmountLater(dir)
	return dir, err
}

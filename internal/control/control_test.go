package control

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestListenAndDial(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	l, err := listen(dir, 42)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, socket(dir, 42): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want mode %o", path, info.Mode(), err, want)
		}
	}
	raw, err := net.Dial("unix", socket(dir, 42))
	if err != nil {
		t.Fatal(err)
	}
	conn := &Conn{raw}
	defer conn.Close()
	// The daemon lives: nothing comes until the waiter gives up.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := conn.AwaitEnd(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("AwaitEnd = %v, want Canceled", err)
	}
	if err := l.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(socket(dir, 42)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// The daemon may end before it has accepted: that is its end all the same.
func TestAwaitEndOfADaemonThatNeverAccepted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn := &Conn{raw}
	defer conn.Close()
	l.Close()
	if err := conn.AwaitEnd(t.Context()); err != nil {
		t.Errorf("AwaitEnd = %v, want nil", err)
	}
}

func TestAwaitEndReturnsWithTheDaemon(t *testing.T) {
	ours, daemons := net.Pipe()
	daemons.Close()
	if err := (&Conn{ours}).AwaitEnd(t.Context()); err != nil {
		t.Errorf("AwaitEnd = %v, want nil", err)
	}
}

// Anybody may listen in a directory of /tmp that looks like a user's.
func TestDialRefusesOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	l, err := listen(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer l.socket.Close()
	conn, err := dial(socket(dir, 1), os.Geteuid())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if conn, err := dial(socket(dir, 1), os.Geteuid()+1); err == nil {
		conn.Close()
		t.Error("connected to a process of another user")
	}
}

// A daemon that ends late leaves the socket of its successor alone.
func TestRemoveLeavesASuccessorAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	old, err := listen(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer old.socket.Close()
	successor, err := listen(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer successor.socket.Close()
	if err := old.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(socket(dir, 1)); err != nil {
		t.Errorf("the successor's socket: %v", err)
	}
}

func TestListenReplacesWhatAKilledDaemonLeft(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(socket(dir, 7), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := listen(dir, 7)
	if err != nil {
		t.Fatal(err)
	}
	l.socket.Close()
}

func TestListenRefusesADirectoryOfOthers(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"open to all": func(path string) error {
			return errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, 0o777))
		},
		"a link": func(path string) error {
			return errors.Join(os.Mkdir(path+".target", 0o700), os.Symlink(path+".target", path))
		},
		"a file": func(path string) error { return os.WriteFile(path, nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "run")
			if err := make(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := listen(dir, 1); err == nil {
				t.Error("no error")
			}
		})
	}
}

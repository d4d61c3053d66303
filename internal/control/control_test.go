package control

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestListenAndDial(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	l, err := listen(dir, 42, nil)
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

// Whoever waits for the daemon's end, before or after it has said why that is no good
// one, hears it; who asks something else does not.
func TestLastWord(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	l, err := listen(dir, 1, func() []byte { return []byte("{}") })
	if err != nil {
		t.Fatal(err)
	}
	defer l.socket.Close()
	connect := func() *Conn {
		conn, err := dial(socket(dir, 1), os.Geteuid())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	early, other := connect(), connect()
	if err := early.Follow(); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := early.AwaitEnd(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("AwaitEnd = %v, want DeadlineExceeded", err)
	}
	l.Last("the disk is gone")
	late := connect()
	if err := late.Follow(); err != nil {
		t.Fatal(err)
	}
	for what, conn := range map[string]*Conn{"waiting before": early, "waiting after": late} {
		// Connections end with the process; here, with the patience of the test.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := conn.AwaitEnd(ctx)
		cancel()
		if err == nil || err.Error() != "the disk is gone" {
			t.Errorf("%s: %v, want the last word", what, err)
		}
	}
	if answer, err := other.Status(); err != nil || string(answer) != "{}\n" {
		t.Errorf("Status = %q, %v", answer, err)
	}
}

// A daemon that has no descriptor left for a connection answers when it has one.
func TestAcceptGoesOn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	l, err := listen(dir, 1, func() []byte { return []byte("fine") })
	if err != nil {
		t.Fatal(err)
	}
	defer l.socket.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	early := os.NewFile(uintptr(fd), "early")
	defer early.Close()

	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	free, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(free)
	none.Cur = uint64(free) // the lowest that is free
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	connectErr := unix.Connect(fd, &unix.SockaddrUnix{Name: socket(dir, 1)})
	time.Sleep(acceptTime / 2) // accept fails meanwhile
	if err := errors.Join(connectErr, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)); err != nil {
		t.Fatal(err)
	}

	late, err := dial(socket(dir, 1), os.Geteuid())
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if got, err := late.Status(); err != nil || string(got) != "fine\n" {
		t.Errorf("Status = %q, %v", got, err)
	}
}

// Anybody may listen in a directory of /tmp that looks like a user's.
func TestDialRefusesOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	l, err := listen(dir, 1, nil)
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
	old, err := listen(dir, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer old.socket.Close()
	successor, err := listen(dir, 1, nil)
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
	l, err := listen(dir, 7, nil)
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
			if _, err := listen(dir, 1, nil); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestStatus(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	asked := 0
	l, err := listen(dir, 3, func() []byte { asked++; return []byte(`{"asked":true}`) })
	if err != nil {
		t.Fatal(err)
	}
	defer l.socket.Close()
	conn, err := dial(socket(dir, 3), os.Geteuid())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 2 { // as often as somebody asks
		if got, err := conn.Status(); err != nil || string(got) != "{\"asked\":true}\n" {
			t.Errorf("Status = %q, %v", got, err)
		}
	}
	if asked != 2 {
		t.Errorf("the daemon was asked %d times, want 2", asked)
	}
}

// One who says something else is hung up on; the others go on.
func TestServeRefusesOtherQuestions(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	l, err := listen(dir, 3, func() []byte { return []byte("fine") })
	if err != nil {
		t.Fatal(err)
	}
	defer l.socket.Close()
	odd, err := net.Dial("unix", socket(dir, 3))
	if err != nil {
		t.Fatal(err)
	}
	defer odd.Close()
	if _, err := odd.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(odd); len(got) > 0 {
		t.Errorf("answered %q to nonsense", got)
	}
	conn, err := dial(socket(dir, 3), os.Geteuid())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := conn.Status(); err != nil || string(got) != "fine\n" {
		t.Errorf("Status = %q, %v", got, err)
	}
}

// Package control lets other processes reach the daemon of a mount: through a
// socket named after the mount's device number, in a directory that only its
// user can enter. A connection answers the line "status" with a line of JSON, as
// often as it is asked. It ends when the daemon does; who has said "wait" hears the daemon's
// last word before, if there is one.
package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dirs are where the sockets of a user's daemons may lie, the best first.
func dirs(uid int) []string {
	id := strconv.Itoa(uid)
	if uid == 0 {
		return []string{"/run/cloopfs"}
	}
	var list []string
	if runtime := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(runtime) && uid == os.Getuid() {
		list = append(list, filepath.Join(runtime, "cloopfs"))
	}
	return append(list, filepath.Join("/run/user", id, "cloopfs"), "/tmp/cloopfs-"+id)
}

func socket(dir string, device int) string {
	return filepath.Join(dir, strconv.Itoa(device)+".sock")
}

// Listener is a daemon's end.
type Listener struct {
	path   string
	file   fs.FileInfo // of path, when it was made
	socket *net.UnixListener
	status func() []byte

	mu      sync.Mutex
	waiting map[net.Conn]bool // those that wait for the daemon's end
	last    string            // its last word
}

// maxConns bounds how many connections a daemon serves at a time.
const maxConns = 64

// Listen makes the socket of the mount with the given device number. status
// returns what is answered to that question, in one line; it must not wait for
// anything.
func Listen(device int, status func() []byte) (*Listener, error) {
	var errs []error
	for _, dir := range dirs(os.Geteuid()) {
		l, err := listen(dir, device, status)
		if err == nil {
			return l, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("make control socket: %w", errors.Join(errs...))
}

func listen(dir string, device int, status func() []byte) (*Listener, error) {
	if err := private(dir); err != nil {
		return nil, err
	}
	path := socket(dir, device)
	// What is left of a daemon that was killed: the number is ours now.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	s, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	file, err := os.Lstat(path)
	if err := errors.Join(err, os.Chmod(path, 0o600)); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	l := &Listener{path: path, file: file, socket: s, status: status, waiting: make(map[net.Conn]bool)}
	go l.accept() // as long as the process lives
	return l, nil
}

// private makes dir, or checks that it is a directory that nobody else can use.
func private(dir string) error {
	if err := os.Mkdir(dir, 0o700); err == nil || !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || !ok || int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%s is not a directory of ours with mode 0700", dir)
	}
	return nil
}

// acceptTime is how long to wait after an error (there is no descriptor left, say) for what may
// be better then.
const acceptTime = 100 * time.Millisecond

// accept serves connections until the socket is closed; more than maxConns wait.
func (l *Listener) accept() {
	free := make(chan struct{}, maxConns)
	for {
		free <- struct{}{}
		conn, err := l.socket.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			<-free
			time.Sleep(acceptTime)
			continue
		}
		go func() {
			defer func() { <-free }()
			defer conn.Close()
			if uid, err := peer(conn); err == nil && (uid == os.Geteuid() || uid == 0) {
				l.serve(conn)
			}
		}()
	}
}

// serve answers questions until the other end hangs up. It drops one that says
// something else, or that does not take its answer.
func (l *Listener) serve(conn net.Conn) {
	for lines := bufio.NewScanner(io.LimitReader(conn, maxQuestions)); lines.Scan(); {
		switch lines.Text() + "\n" {
		case question:
			conn.SetWriteDeadline(time.Now().Add(answerTime))
			if _, err := conn.Write(append(l.status(), '\n')); err != nil {
				return
			}
		case wait:
			l.await(conn)
			return
		default:
			return
		}
	}
}

// await holds a connection until the daemon ends, or the other end hangs up.
func (l *Listener) await(conn net.Conn) {
	l.mu.Lock()
	l.waiting[conn] = true
	tell(conn, heard)
	if l.last != "" {
		tell(conn, l.last+"\n")
	}
	l.mu.Unlock()
	_, _ = io.Copy(io.Discard, conn)
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, conn)
}

// tell says a word to who may not listen any more.
func tell(conn net.Conn, word string) {
	conn.SetWriteDeadline(time.Now().Add(lastWordTime))
	_, _ = io.WriteString(conn, word)
}

// Last tells all who wait for the daemon's end, now or later, why that is no good one,
// in one line.
func (l *Listener) Last(word string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = word
	for conn := range l.waiting {
		tell(conn, word+"\n")
	}
}

// Remove takes the socket away, unless it has been replaced by that of a newer
// daemon. Connections, accepted or not, stay until the process ends, so that
// their end means just that.
func (l *Listener) Remove() error {
	now, err := os.Lstat(l.path)
	if err != nil || !os.SameFile(now, l.file) {
		return err
	}
	return os.Remove(l.path)
}

// Conn is a connection to a daemon.
type Conn struct{ conn net.Conn }

// Dial connects to the daemon of the mount with the given device number and
// owner.
func Dial(device, owner int) (*Conn, error) {
	var errs []error
	for _, dir := range dirs(owner) {
		conn, err := dial(socket(dir, device), owner)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// dial connects to a socket if a process of owner listens there: anybody may
// make a directory in /tmp.
func dial(path string, owner int) (*Conn, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	uid, err := peer(conn)
	if err == nil && uid != owner {
		err = fmt.Errorf("%s is of user %d", path, uid)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &Conn{conn}, nil
}

// peer is the user at the other end.
func peer(conn *net.UnixConn) (uid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	ctlErr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, ctlErr); err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}

// The question of Status, how long an answer may take, and how long it may be.
const (
	question   = "status\n"
	answerTime = 5 * time.Second
	maxAnswer  = 1 << 20
)

// The question of Follow and its answer, how long that and a last word may take, and how
// much may be asked.
const (
	wait         = "wait\n"
	heard        = "\n"
	followTime   = time.Second
	lastWordTime = 100 * time.Millisecond
	maxQuestions = 1 << 20
)

// Status asks the daemon how it is: the answer is what its status function
// returned.
func (c *Conn) Status() ([]byte, error) {
	if err := c.conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(c.conn, question); err != nil {
		return nil, err
	}
	answer, err := bufio.NewReader(io.LimitReader(c.conn, maxAnswer)).ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	return answer, c.conn.SetDeadline(time.Time{})
}

// Follow tells the daemon that this connection waits for its end: from then on its
// last word reaches AwaitEnd.
func (c *Conn) Follow() error {
	c.conn.SetDeadline(time.Now().Add(followTime))
	defer c.conn.SetDeadline(time.Time{})
	if _, err := io.WriteString(c.conn, wait); err != nil {
		return err
	}
	_, err := io.ReadFull(c.conn, make([]byte, len(heard)))
	return err
}

// AwaitEnd returns when the daemon has ended, or ctx has; then it may be called again.
// The error is the daemon's last word, if it had one and Follow was called before.
func (c *Conn) AwaitEnd(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.conn.SetReadDeadline(time.Now()) })
	defer func() {
		stop()
		c.conn.SetReadDeadline(time.Time{})
	}()
	text, err := io.ReadAll(io.LimitReader(c.conn, maxAnswer))
	word := strings.TrimSpace(string(text)) // Follow may have missed an answer that came late
	switch {
	case word != "":
		return errors.New(word)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ctx.Err()
	case errors.Is(err, syscall.ECONNRESET): // it ended before it accepted
		return nil
	}
	return err
}

// Close ends the connection.
func (c *Conn) Close() error { return c.conn.Close() }

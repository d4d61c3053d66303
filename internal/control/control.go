// Package control lets other processes reach the daemon of a mount: through a
// socket named after the mount's device number, in a directory that only its
// user can enter. A connection says nothing yet; it ends when the daemon does.
package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

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
	socket net.Listener
	conns  []net.Conn // kept open; used by accept alone
}

// maxConns bounds how many connections a daemon holds.
const maxConns = 64

// Listen makes the socket of the mount with the given device number.
func Listen(device int) (*Listener, error) {
	var errs []error
	for _, dir := range dirs(os.Geteuid()) {
		l, err := listen(dir, device)
		if err == nil {
			return l, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("make control socket: %w", errors.Join(errs...))
}

func listen(dir string, device int) (*Listener, error) {
	if err := private(dir); err != nil {
		return nil, err
	}
	path := socket(dir, device)
	// What is left of a daemon that was killed: the number is ours now.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	s, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	file, err := os.Lstat(path)
	if err := errors.Join(err, os.Chmod(path, 0o600)); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	l := &Listener{path: path, file: file, socket: s}
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

// accept keeps the newest connections open.
func (l *Listener) accept() {
	for {
		conn, err := l.socket.Accept()
		if err != nil {
			return
		}
		l.conns = append(l.conns, conn)
		if len(l.conns) > maxConns {
			l.conns[0].Close()
			l.conns = l.conns[1:]
		}
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
	raw, err := conn.SyscallConn()
	if err == nil {
		var peer *unix.Ucred
		ctlErr := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
		err = errors.Join(err, ctlErr)
		if err == nil && int(peer.Uid) != owner {
			err = fmt.Errorf("%s is of user %d", path, peer.Uid)
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &Conn{conn}, nil
}

// AwaitEnd returns when the daemon has ended, or ctx has.
func (c *Conn) AwaitEnd(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	_, err := io.Copy(io.Discard, c.conn)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, syscall.ECONNRESET): // it ended before it accepted
		return nil
	}
	return err
}

// Close ends the connection.
func (c *Conn) Close() error { return c.conn.Close() }

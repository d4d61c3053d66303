package main

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/control"
	"github.com/cloopfs/cloopfs/internal/mounts"
)

// A process that has its mount no more is waited for, however long it takes; a mount that is
// elsewhere, too, is not.
func TestAwaitDaemon(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	defer func(was time.Duration) { endTime = was }(endTime)
	endTime = 10 * time.Millisecond
	m := mounts.Mount{Device: 1 << 30, Owner: os.Geteuid()}
	for _, c := range []struct{ status, want string }{
		{`{"unmounted": true}`, "no room"},
		{`{"unmounted": false}`, "unmounted here, but still in use: by another mount namespace or a bind mount"},
	} {
		asked := 0
		var socket *control.Listener
		socket, err := control.Listen(m.Device, func() []byte {
			if asked++; asked == 3 {
				socket.Last("no room")
			}
			return []byte(c.status)
		})
		if err != nil {
			t.Fatal(err)
		}
		daemon, err := control.Dial(m.Device, m.Owner)
		if err != nil {
			t.Fatal(err)
		}
		if err := daemon.Follow(); err != nil {
			t.Fatal(err)
		}
		if err := awaitDaemon(t.Context(), daemon, m); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, want %q", c.status, err, c.want)
		}
		if err := errors.Join(daemon.Close(), socket.Remove()); err != nil {
			t.Error(err)
		}
	}
}

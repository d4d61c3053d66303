//go:build integration

package test

import (
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// devScript gives the machine it runs on a /dev of links to what it was, where
// log is the socket $2.
const devScript = `set -e
cd "$1"
mkdir was dev
mount --rbind /dev was
ln -s "$PWD"/was/* dev
ln -sfn "$2" dev/log
mount --bind dev /dev`

// syslogd receives what a machine sends to syslog.
type syslogd struct {
	// mu guards the field below.
	mu    sync.Mutex
	lines []string
}

// newSyslogd receives what is sent to /dev/log on m.
func newSyslogd(t *testing.T, m *machine) *syslogd {
	t.Helper()
	dir := t.TempDir()
	socket := filepath.Join(dir, "log")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	m.must(t, "sh", "-c", devScript, "sh", dir, socket)
	d := new(syslogd)
	go func() {
		p := make([]byte, 64*kib)
		for {
			n, err := conn.Read(p)
			if err != nil {
				return // the end of the test
			}
			d.mu.Lock()
			d.lines = append(d.lines, string(p[:n]))
			d.mu.Unlock()
		}
	}()
	return d
}

// with returns the first line with this text, empty if there is none.
func (d *syslogd) with(text string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, line := range d.lines {
		if strings.Contains(line, text) {
			return line
		}
	}
	return ""
}

// A mount in the background logs to syslog: as a daemon, each line with its
// severity, and no secrets.
func TestSyslog(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	srv, url := serve(t, s.image)
	m := newMachine(t)
	d := newSyslogd(t, m)
	dir := makeDir(t)
	m.must(t, cloopfs, "mount", "-v", secretURL(url), dir)
	srv.Set(func(c *testserver.Config) { c.StatusTimes, c.Status = -1, 403 })
	if r := m.run(t, "cat", diskOf(dir)); r.code == 0 {
		t.Error("the disk can be read, and the log is worth nothing")
	}
	for _, want := range []struct {
		severity   string
		text, also string
	}{
		{"<30>", "msg=mounted", "mountpoint=" + dir}, // facility daemon, informational
		{"<27>", `msg="read failed"`, "403"},         // facility daemon, error
	} {
		waitFor(t, want.text, func() bool { return d.with(want.text) != "" })
		line := d.with(want.text)
		if !strings.HasPrefix(line, want.severity) || !strings.Contains(line, " cloopfs[") || !strings.Contains(line, want.also) {
			t.Errorf("got the line %q, want it to start with %s, from cloopfs, with %q", line, want.severity, want.also)
		}
	}
	m.umount(t, dir)
	if line := d.with("geheim"); line != "" {
		t.Errorf("a secret in the line %q", line)
	}
}

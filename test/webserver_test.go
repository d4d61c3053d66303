//go:build integration

package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// webServer is a real web server that the tests start.
type webServer struct {
	name string
	// config is its configuration for serving docs at a port of 127.0.0.1, with
	// its own files in dir.
	config func(dir, docs string, port int) string
	// args are those to run it in the foreground, as one process.
	args func(config string) []string
}

var nginx = webServer{
	name: "nginx",
	config: func(dir, docs string, port int) string {
		return fmt.Sprintf(`
daemon off;
master_process off;
pid %[1]s/pid;
error_log stderr;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	sendfile on;
	server {
		listen 127.0.0.1:%[2]d;
		root %[3]s;
	}
}
`, dir, port, docs)
	},
	args: func(config string) []string {
		return []string{"nginx", "-e", "stderr", "-p", filepath.Dir(config), "-c", config}
	},
}

var lighttpd = webServer{
	name: "lighttpd",
	config: func(_, docs string, port int) string {
		return fmt.Sprintf(`
server.bind = "127.0.0.1"
server.port = %d
server.document-root = %q
`, port, docs)
	},
	args: func(config string) []string { return []string{"lighttpd", "-D", "-f", config} },
}

// start serves docs until the test's end and returns the URL of it.
func (w webServer) start(t *testing.T, docs string) string {
	t.Helper()
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	w.startAt(t, docs, addr)
	return "http://" + addr
}

// startAt serves docs at an address, with a command before the server's own if one is
// given.
func (w webServer) startAt(t *testing.T, docs, addr string, before ...string) *process {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "config")
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	config := strings.ReplaceAll(w.config(dir, docs, n), "127.0.0.1", host)
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	args := slices.Concat(before, w.args(file))
	p := start(t, args[0], args[1:]...)
	waitFor(t, w.name+" listens", func() bool {
		if !p.running() {
			t.Fatalf("%s has ended: %v", w.name, p.result(t))
		}
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
	return p
}

// freePort is a port of 127.0.0.1 where nobody listens.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

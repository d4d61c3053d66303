//go:build integration

package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
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
	dir := t.TempDir()
	config := filepath.Join(dir, "config")
	port := freePort(t)
	if err := os.WriteFile(config, []byte(w.config(dir, docs, port)), 0o644); err != nil {
		t.Fatal(err)
	}
	args := w.args(config)
	p := start(t, args[0], args[1:]...)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
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
	return "http://" + addr
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

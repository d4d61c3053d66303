package main

import (
	"crypto/tls"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
)

// What the flags say arrives at the server.
func TestAccess(t *testing.T) {
	_, image := smallImage()
	headers := writeFile(t, "headers", []byte("# for the test\nX-One: 1\n\n x-two :2:2 \r\nX-One: 1b\n"))
	spaced := writeFile(t, "headers", []byte("# for the test\n\n\tX-One: 1\nX-two:2:2 \r\nX-One: 1b"))
	netrc := writeFile(t, "netrc", []byte("machine 127.0.0.1 login n password n\n"))
	token := writeFile(t, "token", []byte("t0ken\n"))
	home := filepath.Dir(writeFile(t, ".netrc", []byte("default login h password h\n")))
	tests := []struct {
		name string
		env  []string
		args []string
		want http.Header
	}{
		{name: "nothing", want: http.Header{"User-Agent": {"cloopfs/" + version()}}},
		{name: "agent", args: []string{"--user-agent", "Mozilla/1"}, want: http.Header{"User-Agent": {"Mozilla/1"}}},
		{name: "header", args: []string{"--header", "X-One:  1 ", "--header=x-one: 2"}, want: http.Header{"X-One": {"1", "2"}}},
		{name: "with commas and quotes", args: []string{"--header", `X-One: a,b "c",d`}, want: http.Header{"X-One": {`a,b "c",d`}}},
		{name: "headers in a file", args: []string{"--header", "@" + spaced, "--header", "X-One: 2"}, want: http.Header{"X-One": {"1", "1b", "2"}, "X-Two": {"2:2"}}},
		{name: "Authorization", args: []string{"--header", "authorization: Digest x"}, want: http.Header{"Authorization": {"Digest x"}}},
		{name: "token", args: []string{"--bearer-token-file", token}, want: http.Header{"Authorization": {"Bearer t0ken"}}},
		{name: "$NETRC", env: []string{"NETRC=" + netrc, "HOME=" + home}, args: []string{"--netrc"}, want: http.Header{"Authorization": {"Basic bjpu"}}},
		{name: "netrc at home", env: []string{"NETRC=", "HOME=" + home}, args: []string{"--netrc"}, want: http.Header{"Authorization": {"Basic aDpo"}}},
		{name: "netrc not wanted", env: []string{"NETRC=" + netrc}, want: http.Header{"Authorization": nil}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var seen atomic.Pointer[http.Header]
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				h := r.Header.Clone()
				seen.Store(&h)
				content(w, r, image)
			})
			got := program(t, tt.env, slices.Concat([]string{"verify"}, tt.args, []string{url})...)
			if got.code != 0 {
				t.Fatalf("got %+v", got)
			}
			for name, want := range tt.want {
				if diff := cmp.Diff(want, (*seen.Load())[name]); diff != "" {
					t.Errorf("header %s (-want +got):\n%s", name, diff)
				}
			}
		})
	}
	bad := program(t, nil, "verify", "--header", "@"+headers, "http://127.0.0.1:1/f")
	if bad.code != cli.ExitUsage || !strings.Contains(bad.stderr, "line 4: not the name of a header") {
		t.Errorf("a space before the colon: got %+v", bad)
	}
}

// Certificates can be given in any of the ways that people keep them.
func TestAccessByCertificate(t *testing.T) {
	_, image := smallImage()
	later := time.Now().Add(time.Hour)
	server, serverPEM, _ := certificate(t, "server", later)
	_, certPEM, keyPEM := certificate(t, "client", later)
	_, otherPEM, otherKey := certificate(t, "other", later)
	cas := writeFile(t, "cas", slices.Concat(otherPEM, []byte("# ours\n"), serverPEM))
	cert, key := writeFile(t, "cert", certPEM), writeFile(t, "key", keyPEM)
	both := writeFile(t, "both", slices.Concat(keyPEM, certPEM))
	wrong := writeFile(t, "wrong", otherKey)
	url := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAnyClientCert}, func(w http.ResponseWriter, r *http.Request) {
		if got := r.TLS.PeerCertificates[0].Subject.CommonName; got != "client" {
			t.Errorf("got a certificate of %q, want the client's", got)
		}
		content(w, r, image)
	})
	tests := []struct {
		name string
		args []string
		code int
		says string
	}{
		{"certificate and key", []string{"--cacert", cas, "--cert", cert, "--key", key}, 0, ""},
		{"in one file", []string{"--cacert", cas, "--cert", both}, 0, ""},
		{"unchecked", []string{"--insecure", "--cert", both}, 0, ""},
		{"without the key", []string{"--cacert", cas, "--cert", cert}, cli.ExitUsage, "--cert " + cert + ": "},
		{"another key", []string{"--cacert", cas, "--cert", cert, "--key", wrong}, cli.ExitUsage, "private key does not match public key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := program(t, nil, slices.Concat([]string{"verify"}, tt.args, []string{url})...)
			if got.code != tt.code || !strings.Contains(got.stderr, tt.says) {
				t.Errorf("got %+v, want exit status %d with %q", got, tt.code, tt.says)
			}
		})
	}
}

// What ps(1) shows of who we are has no secrets, and names files as they were given.
func TestAccessInArguments(t *testing.T) {
	cmd := newMountCmd()
	if err := cmd.ParseFlags([]string{
		"--header=@headers", "--header=Y: SECRET", "--netrc", "--bearer-token-file=token", "--cacert=cas", "--cert=cert", "--key=key",
		"--insecure", "--user-agent=me",
	}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"cloopfs", "mount", "--bearer-token-file=token", "--cacert=cas", "--cert=cert", "--header=@headers,Y", "--insecure=true",
		"--key=key", "--netrc=true", "--user-agent=me", "http://h/f", "/mnt",
	}
	if diff := cmp.Diff(want, backgroundArgs(cmd.Flags(), mountOptions{DiskOptions: DiskOptions{Source: line.Location{URL: "http://h/f"}}, Mountpoint: "/mnt"})); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
}

// The shell's <(command) can be given for any file.
func TestAccessFromPipes(t *testing.T) {
	_, image := smallImage()
	var seen atomic.Pointer[http.Header]
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		h := r.Header.Clone()
		seen.Store(&h)
		content(w, r, image)
	})
	for _, tt := range []struct{ flag, text, name, want string }{
		{"--bearer-token-file=/dev/fd/3", "t0ken", "Authorization", "Bearer t0ken"},
		{"--header=@/dev/fd/3", "X-One: 1", "X-One", "1"},
	} {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer read.Close()
		if _, err := write.WriteString(tt.text); err != nil {
			t.Fatal(err)
		}
		write.Close()
		cmd := exec.CommandContext(t.Context(), "cloopfs", "verify", tt.flag, url)
		cmd.ExtraFiles = []*os.File{read}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", tt.flag, err, out)
			continue
		}
		if got := seen.Load().Get(tt.name); got != tt.want {
			t.Errorf("%s: got %s %q, want %q", tt.flag, tt.name, got, tt.want)
		}
	}
}

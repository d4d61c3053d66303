package line

import (
	"bytes"
	"encoding/gob"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/httpblock"
	"github.com/cloopfs/cloopfs/internal/testserver"
)

// The process in the background gets all of it, and runs in another directory.
func TestAccessTravels(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	_, certPEM, keyPEM, err := testserver.Certificate("client", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"cas": certPEM, "cert": certPEM, "key": keyPEM, "token": []byte("t"), "headers": []byte("X: SECRET"), "netrc": []byte("default login x password x"),
	} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("NETRC", "netrc")
	t.Setenv("https_proxy", "http://user:SECRET@proxy")
	var o AccessOptions
	o.Headers = headerFlag{"@headers", "Y: SECRET"}
	o.Netrc, o.TokenFile, o.CACert, o.Cert, o.Key, o.Insecure, o.UserAgent = true, "token", "cas", "cert", "key", true, "me"
	if err := o.complete(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := AccessOptions{
		Headers: o.Headers, Netrc: true, TokenFile: dir + "/token", CACert: dir + "/cas", Cert: dir + "/cert", Key: dir + "/key",
		Insecure: true, UserAgent: "me",
		Header: http.Header{"X": {"SECRET"}, "Y": {"SECRET"}}, NetrcText: "default login x password x",
		Token: "t", CAs: certPEM, CertPEM: certPEM, KeyPEM: keyPEM,
	}
	want.Proxies = o.Proxies // and whatever else this machine has
	if got := o.Proxies["https_proxy"]; got != "http://user:SECRET@proxy" {
		t.Errorf("got https_proxy %q", got)
	}
	var pipe bytes.Buffer
	if err := gob.NewEncoder(&pipe).Encode(o); err != nil {
		t.Fatal(err)
	}
	var got AccessOptions
	if err := gob.NewDecoder(&pipe).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
	if got := WithoutProxies([]string{"A=b", "https_proxy=http://user:SECRET@proxy", "NO_PROXY=x", "HTTP_PROXY=y"}); !slices.Equal(got, []string{"A=b", "NO_PROXY=x"}) {
		t.Errorf("got environment %q", got)
	}
}

// What is not a regular file is read once, whatever it is asked for later.
func TestTokenFromPipe(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		if err := os.WriteFile(name, []byte("t0ken\n"), 0o600); err != nil {
			t.Error(err)
		}
	}()
	fixed := AccessOptions{TokenFile: name}
	file := AccessOptions{TokenFile: writeFile(t, "token", []byte("t0ken\n"))}
	for _, o := range []*AccessOptions{&fixed, &file} {
		if err := o.complete(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(file.TokenFile, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	for o, want := range map[*AccessOptions][]string{&fixed: {"t0ken", "t0ken", "t0ken"}, &file: {"t0ken", "another", "another"}} {
		var opt httpblock.Options
		if err := o.apply(&opt); err != nil {
			t.Fatal(err)
		}
		for i := range want {
			if got, err := opt.Token(); got != want[i] || err != nil {
				t.Errorf("%s, time %d: got token %q, error %v, want %q", filepath.Base(o.TokenFile), i+1, got, err, want[i])
			}
		}
	}
}

//go:build integration

package test

import (
	"strings"
	"testing"
)

// make install installs what everybody may read and nothing else, whatever the
// caller's umask, and make uninstall removes all of it.
func TestInstall(t *testing.T) {
	const installed = `sbin/mount.cloopfs -> /usr/local/bin/cloopfs
usr/local/bin/cloopfs 755
usr/local/share/bash-completion/completions/cloopfs 644
usr/local/share/fish/vendor_completions.d/cloopfs.fish 644
usr/local/share/zsh/site-functions/_cloopfs 644
`
	dest := t.TempDir()
	list := func() string {
		return must(t, "sh", "-c", `find "$1" -type l -printf '%P -> %l\n' -o -type f -size +0 -printf '%P %m\n' | sort`, "sh", dest)
	}
	must(t, "sh", "-c", `umask 077; make -C .. install DESTDIR="$1"`, "sh", dest)
	if got := list(); got != installed {
		t.Errorf("installed:\n%swant:\n%s", got, installed)
	}
	if got := must(t, dest+"/usr/local/bin/cloopfs", "version"); !strings.HasPrefix(got, "cloopfs ") {
		t.Errorf("version is %q", got)
	}
	must(t, "make", "-C", "..", "uninstall", "DESTDIR="+dest)
	if got := list(); got != "" {
		t.Errorf("left behind:\n%s", got)
	}
}

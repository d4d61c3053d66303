//go:build integration

package test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A process that is killed while the disk is read leaves what it has stored, and
// nothing that is wrong: the next mount asks for no block that was there. A kill
// costs what is on its way.
func TestKilledMounts(t *testing.T) {
	const loss = 2 * mib // for each kill; the most that is on its way for one reader
	rounds := envNumber(t, "CLOOPFS_TEST_KILLS", 20)
	for _, l := range needLarge(t) {
		t.Run(l.name, func(t *testing.T) {
			srv, url := serve(t, l.image)
			log := filepath.Join(t.TempDir(), "log")
			cache, flags := newCache(t, append(l.flags, "--log-file", log)...)
			dir := makeDir(t)
			sent, size := int64(0), int64(len(l.image))
			for left := rounds; left >= 0; left-- {
				kept := l.kept(t, cache)
				srv.Reset()
				mountAt(t, url, dir, flags...)
				p := start(t, "cmp", diskOf(dir), l.disk)
				if left > 0 {
					// The rounds share what is missing, more or less.
					missing := size - l.bytesOf(kept)
					until := rand.Int64N(2*missing/int64(left) + 1)
					for p.running() && srv.Stats().Bytes < until {
						time.Sleep(100 * time.Microsecond)
					}
					if err := syscall.Kill(daemon(t, dir), syscall.SIGKILL); err != nil {
						t.Fatal(err)
					}
					waitFor(t, "the mount is dead", func() bool { return endOfMount(run(t, "stat", dir).stderr) })
				}
				r := p.result(t)
				if r.stdout != "" || r.code == 0 != (r.stderr == "") || left == 0 && r.code != 0 {
					t.Fatalf("cmp: %v, want no difference", r)
				}
				// The kernel says EIO of an answer that it was copying.
				if r.code != 0 && !endOfMount(r.stderr) && !strings.Contains(r.stderr, "Input/output error") {
					t.Fatalf("cmp: %v, want no error but the mount's end", r)
				}
				if text, err := os.ReadFile(log); err != nil || strings.Contains(string(text), "level=ERROR") || strings.Contains(string(text), "level=WARN") {
					t.Fatalf("cmp: %v; the log is %q, %v, want no error", r, text, err)
				}
				st := srv.Stats()
				l.checkNotAgain(t, st.Ranges, kept)
				sent += st.Bytes
			}
			umount(t, dir)
			most := size + int64(rounds)*loss + int64(rounds+1)*8*kib
			t.Logf("%d kills: %d bytes sent for an image of %d, %d more for each kill", rounds, sent, size, (sent-size)/int64(rounds))
			if sent > most {
				t.Errorf("%d bytes were sent, want at most %d", sent, most)
			}
			srv.Reset()
			mountAt(t, url, dir, flags...)
			must(t, "cmp", diskOf(dir), l.disk)
			if st := srv.Stats(); st.Requests != 1 {
				t.Errorf("in the end there are %d requests, want one: %v", st.Requests, st.Ranges)
			}
			umount(t, dir)
		})
	}
}

// endOfMount says whether a reader's message is that the process behind the mount
// is gone.
func endOfMount(stderr string) bool {
	for _, want := range []string{"Transport endpoint is not connected", "Software caused connection abort"} {
		if strings.Contains(stderr, want) {
			return true
		}
	}
	return false
}

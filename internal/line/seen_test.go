package line

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/manifest"
)

// Between the two looks at what was seen another process may remember a newer version, and
// what nobody can read stays as it is.
func TestNewerSeenMeanwhile(t *testing.T) {
	opt := ProofOptions{Key: "key"}
	dir := CacheOptions{Dir: cli.Name(filepath.Join(t.TempDir(), "cache")), Size: 1 << 20}
	log := slog.New(slog.DiscardHandler)
	version := func(n int64) *Proof {
		m := &manifest.Manifest{Name: "image", Version: n, Facts: manifest.Facts{Container: containerRaw, BlockSize: 1}}
		return &Proof{manifest: m, notes: []*note{{at: Location{Path: "image.manifest"}}}}
	}
	older := version(6)
	if err := opt.notOlder(older, dir, log); err != nil {
		t.Fatal(err)
	}
	if err := opt.remember(version(7), dir, log); err != nil {
		t.Fatal(err)
	}
	if err := opt.remember(older, dir, log); !errors.Is(err, errOlder) {
		t.Errorf("error %v, want errOlder", err)
	}
	path := filepath.Join(string(dir.Dir), "seen-"+seenName(opt.Key, "image"))
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := opt.remember(version(8), dir, log); !errors.Is(err, errSeen) {
		t.Errorf("error %v, want errSeen", err)
	}
	if got, err := os.ReadFile(path); string(got) != "damaged" {
		t.Errorf("%q was remembered, %v", got, err)
	}
}

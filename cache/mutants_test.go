package cache

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// checkOnce compares only what is read for the first time.
const checkOnce = `package cache

import "sync"

var checked sync.Map

func matchesOnce(d *Disk, file string, n int64, p []byte, sum uint64) bool {
	type entry struct {
		d    *Disk
		file string
		n    int64
	}
	if _, ok := checked.Load(entry{d, file, n}); ok {
		return sum != 0
	}
	ok := matches(p, sum)
	if ok {
		checked.Store(entry{d, file, n}, true)
	}
	return ok
}
`

// The crash tests find out when the bytes of blocks or of chunks are not compared
// with their checksums, and when that is done at the first use only.
func TestMutants(t *testing.T) {
	const (
		ofBlocks = "matches(p, sum)"
		ofChunks = "matches(p[from:to], sum)"
	)
	for _, m := range []struct{ name, file, check, mutant string }{
		{"no check of blocks", "blocks.go", ofBlocks, "sum != 0"},
		{"no check of chunks", "disk.go", ofChunks, "sum != 0"},
		{"check of blocks at first use", "blocks.go", ofBlocks, "matchesOnce(b.disk, blocksName, n, p, sum)"},
		{"check of chunks at first use", "disk.go", ofChunks, "matchesOnce(d, chunksName, off/ChunkSize+int64(i), p[from:to], sum)"},
	} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			source, err := os.ReadFile(m.file)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(source), m.check); n != 1 {
				t.Fatalf("%s has %q %d times, want once: tell this test where the check is", m.file, m.check, n)
			}
			out, err := crashTests(t, map[string]string{
				m.file:      strings.Replace(string(source), m.check, m.mutant, 1),
				"mutant.go": checkOnce,
			})
			var exit *exec.ExitError
			if !errors.As(err, &exit) || !strings.Contains(out, "wrong byte at") {
				t.Errorf("the crash tests find nothing: %v\n%s", err, out)
			}
		})
	}
}

// crashTests runs the crash tests with other contents in some of the package's
// files.
func crashTests(t *testing.T, files map[string]string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	temporary := t.TempDir()
	write := func(name string, text []byte) string {
		path := filepath.Join(temporary, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	replace := make(map[string]string)
	for name, text := range files {
		replace[filepath.Join(dir, name)] = write(name, []byte(text))
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-vet=off", "-count=1", "-run", "^TestCrash", "-overlay", write("overlay.json", overlay), ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

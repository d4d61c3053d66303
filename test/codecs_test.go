//go:build integration

package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The images that the reference encoders have made, in every codec and layout,
// read right byte for byte: from a file and from a real server, through a mount
// and extracted.
func TestReferenceImages(t *testing.T) {
	docs, err := filepath.Abs("../testdata/cloop")
	if err != nil {
		t.Fatal(err)
	}
	server := nginx.start(t, docs)
	sums, err := os.ReadFile(filepath.Join(docs, "disks.sha256"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(sums)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		t.Run(name, func(t *testing.T) {
			for _, source := range []string{filepath.Join(docs, name), server + "/" + name} {
				dir := mount(t, source)
				equalSum(t, "mounted "+source, must(t, "sha256sum", diskOf(dir)), sum)
				umount(t, dir)
				out := filepath.Join(makeDir(t), "disk")
				must(t, cloopfs, "extract", source, out)
				equalSum(t, "extracted "+source, must(t, "sha256sum", out), sum)
			}
		})
	}
}

func equalSum(t *testing.T, what, sha256sum, want string) {
	t.Helper()
	if got, _, _ := strings.Cut(sha256sum, " "); got != want {
		t.Errorf("%s: SHA-256 %s, want %s", what, got, want)
	}
}

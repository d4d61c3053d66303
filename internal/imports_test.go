// Package internal_test checks the direction of imports between the packages.
package internal_test

import (
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/cloopfs/cloopfs/"

// imports lists what each package of the module imports of the module: no more and
// no less. A package that is not listed fails the test: say here where it belongs.
// Layers know blockio and nothing of each other: internal/line joins those from the image's
// bytes to its disk, cmd what is written over it and how it is shown.
var imports = map[string][]string{
	"blockio":               {},
	"blockio/blockiotest":   {"blockio"},
	"cache":                 {"blockio", "internal/ownfile"},
	"cloop":                 {"blockio", "internal/deflate", "internal/inflate", "internal/lzo"},
	"cloop/clooptest":       {},
	"cmd/cloopfs":           {"blockio", "cache", "cloop", "fusefs", "internal/cli", "internal/control", "internal/daemonlog", "internal/iso9660", "internal/line", "internal/mounts", "internal/partition", "internal/signature", "internal/units", "localfile", "manifest", "overlay", "profile"},
	"fetch":                 {"blockio", "internal/recent"},
	"fusefs":                {"blockio", "internal/errno", "internal/proc"},
	"httpblock":             {"blockio", "internal/recent"},
	"internal":              {},
	"internal/cli":          {},
	"internal/control":      {},
	"internal/daemonlog":    {"internal/cli"},
	"internal/deflate":      {},
	"internal/errno":        {"blockio"},
	"internal/fdtest":       {},
	"internal/inflate":      {},
	"internal/line":         {"blockio", "cache", "cloop", "fetch", "httpblock", "internal/cli", "internal/iso9660", "internal/partition", "internal/signature", "internal/units", "localfile", "manifest", "profile"},
	"internal/lzo":          {},
	"internal/window":       {"blockio"},
	"internal/iso9660":      {"blockio", "internal/window"},
	"internal/mounts":       {"internal/proc"},
	"internal/ownfile":      {},
	"internal/partition":    {"blockio", "internal/window"},
	"internal/proc":         {},
	"internal/recent":       {},
	"internal/signature":    {"blockio"},
	"internal/testserver":   {},
	"internal/units":        {},
	"internal/zlibtest":     {},
	"localfile":             {"blockio"},
	"manifest":              {"blockio"},
	"manifest/manifesttest": {},
	"overlay":               {"blockio", "internal/ownfile"},
	"profile":               {"blockio"},
	"test/demo":             {"internal/testserver"},
}

// libraries lists what each package imports that is neither of the module nor of the
// standard library: no more and no less, too. Packages without any are not in it.
var libraries = map[string][]string{
	"cache":                 {"github.com/hashicorp/golang-lru/v2/simplelru", "github.com/zeebo/xxh3", "golang.org/x/sync/semaphore", "golang.org/x/sys/unix"},
	"cloop":                 {"github.com/hashicorp/golang-lru/v2/simplelru", "github.com/mikelolasagasti/xz", "github.com/pierrec/lz4/v4", "github.com/ulikunitz/xz", "github.com/ulikunitz/xz/lzma", "golang.org/x/sync/errgroup"},
	"cmd/cloopfs":           {"github.com/coreos/go-systemd/v22/daemon", "github.com/schollz/progressbar/v3", "github.com/spf13/cobra", "github.com/spf13/pflag", "golang.org/x/sync/errgroup", "golang.org/x/sys/unix", "kernel.org/pub/linux/libs/security/libcap/cap"},
	"fetch":                 {"golang.org/x/sync/semaphore"},
	"fusefs":                {"github.com/hanwen/go-fuse/v2/fs", "github.com/hanwen/go-fuse/v2/fuse", "golang.org/x/sys/unix", "golang.org/x/time/rate"},
	"httpblock":             {"github.com/cenkalti/backoff/v5", "github.com/git-lfs/go-netrc/netrc", "github.com/hashicorp/golang-lru/v2/simplelru", "golang.org/x/time/rate"},
	"internal/control":      {"golang.org/x/sys/unix"},
	"internal/daemonlog":    {"github.com/spf13/pflag"},
	"internal/inflate":      {"golang.org/x/sys/cpu"},
	"internal/line":         {"github.com/spf13/pflag"},
	"internal/mounts":       {"github.com/moby/sys/mountinfo", "golang.org/x/sys/unix"},
	"internal/ownfile":      {"golang.org/x/sys/unix"},
	"internal/partition":    {"github.com/diskfs/go-diskfs/backend", "github.com/diskfs/go-diskfs/partition/gpt", "github.com/diskfs/go-diskfs/partition/mbr"},
	"localfile":             {"golang.org/x/sys/unix"},
	"manifest":              {"github.com/hashicorp/golang-lru/v2/simplelru", "github.com/jedisct1/go-minisign", "golang.org/x/sync/errgroup", "golang.org/x/sync/semaphore"},
	"manifest/manifesttest": {"golang.org/x/crypto/blake2b"},
	"overlay":               {"golang.org/x/sync/errgroup", "golang.org/x/sys/unix"},
}

func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]bool)
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		pkg := strings.TrimPrefix(fields[0], module)
		found[pkg] = true
		if _, listed := imports[pkg]; !listed {
			t.Errorf("package %s is not in this test's list", pkg)
		}
		var ours, others []string
		for _, imp := range fields[1:] {
			if own, ok := strings.CutPrefix(imp, module); ok {
				ours = append(ours, own)
			} else if first, _, _ := strings.Cut(imp, "/"); path.Ext(first) != "" {
				others = append(others, imp)
			}
		}
		compare(t, pkg, ours, imports[pkg])
		compare(t, pkg, others, libraries[pkg])
	}
	for pkg := range imports {
		if !found[pkg] {
			t.Errorf("this test lists %s, which does not exist", pkg)
		}
	}
}

// compare reports where the imports of a package are not those listed.
func compare(t *testing.T, pkg string, got, want []string) {
	for _, imp := range got {
		if !slices.Contains(want, imp) {
			t.Errorf("%s imports %s", pkg, imp)
		}
	}
	for _, imp := range want {
		if !slices.Contains(got, imp) {
			t.Errorf("%s does not import %s any more: take it off the list", pkg, imp)
		}
	}
}

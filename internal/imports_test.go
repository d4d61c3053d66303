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

// allowed lists what each package of the module may import of the module. A
// package that is not listed fails the test: say here where it belongs.
// Layers know blockio and nothing of each other; cmd alone joins them.
var allowed = map[string][]string{
	"blockio":               {},
	"blockio/blockiotest":   {"blockio"},
	"cache":                 {"blockio"},
	"cloop":                 {"blockio", "internal/deflate", "internal/inflate", "internal/lzo"},
	"cloop/clooptest":       {},
	"cmd/cloopfs":           {"blockio", "cache", "cloop", "fetch", "fusefs", "httpblock", "internal/control", "internal/iso9660", "internal/mounts", "internal/partition", "internal/signature", "localfile", "manifest", "overlay", "profile"},
	"fetch":                 {"blockio", "internal/recent"},
	"fusefs":                {"blockio", "internal/errno"},
	"httpblock":             {"blockio", "internal/recent"},
	"internal":              {},
	"internal/control":      {},
	"internal/deflate":      {},
	"internal/errno":        {"blockio"},
	"internal/inflate":      {},
	"internal/lzo":          {},
	"internal/window":       {"blockio"},
	"internal/iso9660":      {"blockio", "internal/window"},
	"internal/mounts":       {},
	"internal/partition":    {"blockio", "internal/window"},
	"internal/recent":       {},
	"internal/signature":    {"blockio"},
	"internal/testserver":   {},
	"internal/zlibtest":     {},
	"localfile":             {"blockio"},
	"manifest":              {"blockio"},
	"manifest/manifesttest": {},
	"overlay":               {"blockio"},
	"profile":               {"blockio"},
	"test":                  {},
	"test/demo":             {"internal/testserver"},
}

// onlyStandard lists the packages that must import nothing but the standard library.
var onlyStandard = []string{"blockio", "blockio/blockiotest", "cloop/clooptest", "internal/testserver", "internal/errno", "internal/deflate", "internal/lzo", "internal/zlibtest"}

func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		pkg := strings.TrimPrefix(fields[0], module)
		may, listed := allowed[pkg]
		if !listed {
			t.Errorf("package %s is not in this test's list", pkg)
		}
		for _, imp := range fields[1:] {
			if own, ok := strings.CutPrefix(imp, module); ok {
				if !slices.Contains(may, own) {
					t.Errorf("%s imports %s", pkg, own)
				}
			} else if first, _, _ := strings.Cut(imp, "/"); path.Ext(first) != "" && slices.Contains(onlyStandard, pkg) {
				t.Errorf("%s imports %s", pkg, imp)
			}
		}
	}
}

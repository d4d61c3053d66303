package internal_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// tree is the module's root.
var tree = os.DirFS("..")

// files are the paths in the tree that match a pattern of their names, but for what
// is built.
func files(t *testing.T, name string) []string {
	t.Helper()
	var list []string
	err := fs.WalkDir(tree, ".", func(p string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && slices.Contains([]string{".git", "bin", "build"}, e.Name()):
			return fs.SkipDir
		}
		if ok, _ := path.Match(name, e.Name()); ok && !e.IsDir() {
			list = append(list, p)
		}
		return nil
	})
	if err != nil || len(list) == 0 {
		t.Fatalf("no file %s: %v", name, err)
	}
	return list
}

func read(t *testing.T, name string) string {
	t.Helper()
	p, err := fs.ReadFile(tree, filepath.ToSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(p)
}

// Pages stay short enough to be read; of the two largest that is not a matter of long lines.
func TestDocsAreShort(t *testing.T) {
	most := map[string]int{"README.md": 200, "ARCHITECTURE.md": 200}
	for _, name := range files(t, "00*.md") {
		most[name] = 30
	}
	for name, lines := range most {
		if n := strings.Count(read(t, name), "\n"); n > lines {
			t.Errorf("%s has %d lines, more than %d", name, n, lines)
		}
		if strings.HasPrefix(name, "docs/") {
			continue
		}
		code := false
		for line := range strings.Lines(read(t, name)) {
			code = code != strings.HasPrefix(line, "```")
			if n := utf8.RuneCountInString(strings.TrimSpace(line)); n > 120 && !code && line[0] != '|' {
				t.Errorf("%s has a line of %d characters, more than 120: %s", name, n, line)
			}
		}
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)#:]*)(#[^)]*)?\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	notWord = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// Links lead to files and headings that there are.
func TestDocsLinks(t *testing.T) {
	for _, name := range files(t, "*.md") {
		for _, m := range link.FindAllStringSubmatch(read(t, name), -1) {
			target := name
			if m[1] != "" {
				target = path.Join(path.Dir(name), m[1])
			}
			if _, err := fs.Stat(tree, target); err != nil {
				t.Errorf("%s: %s leads nowhere", name, m[1])
				continue
			}
			if m[2] == "" {
				continue
			}
			var anchors []string
			for _, h := range heading.FindAllStringSubmatch(read(t, target), -1) {
				anchors = append(anchors, "#"+strings.ReplaceAll(notWord.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-"))
			}
			if !slices.Contains(anchors, m[2]) {
				t.Errorf("%s: %s has no heading %s", name, target, m[2])
			}
		}
	}
}

var (
	testName  = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w*`)
	testFunc  = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w*)\(`)
	tableWord = regexp.MustCompile("`[\\w/]+`|" + testName.String())
	goFile    = regexp.MustCompile("`([\\w/.-]+\\.(?:go|txtar))`|\\b(\\w+_test\\.go)\\b")
)

// The tests and files that the pages name exist: what guards an invariant, and where
// a thing is changed.
func TestDocsName(t *testing.T) {
	tests, names := make(map[string][]string), make(map[string]bool)
	for _, name := range files(t, "*.go") {
		names[name], names[path.Base(name)] = true, true
		for _, m := range testFunc.FindAllStringSubmatch(read(t, name), -1) {
			tests[m[1]] = append(tests[m[1]], path.Dir(name))
		}
	}
	scripts, err := fs.Glob(tree, "cmd/cloopfs/testdata/script/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range scripts {
		names[path.Base(name)] = true
	}
	for _, name := range files(t, "*.md") {
		if name == "CHANGELOG.md" {
			continue // it speaks of the past
		}
		text := read(t, name)
		for _, test := range testName.FindAllString(text, -1) {
			if tests[test] == nil {
				t.Errorf("%s names %s, which does not exist", name, test)
			}
		}
		for _, m := range goFile.FindAllStringSubmatch(text, -1) {
			if file := m[1] + m[2]; !names[file] {
				t.Errorf("%s names %s, which does not exist", name, file)
			}
		}
	}
	// In the table of invariants a test's package goes before it.
	for row := range strings.Lines(read(t, "ARCHITECTURE.md")) {
		pkg := ""
		for _, word := range tableWord.FindAllString(row, -1) {
			switch dir := strings.Trim(word, "`"); {
			case dir == word && pkg != "" && !slices.ContainsFunc(tests[word], func(in string) bool { return in == pkg || path.Base(in) == pkg }):
				t.Errorf("%s is not a test of %s", word, pkg)
			case dir != word:
				pkg = dir
			}
		}
	}
}

// Who looks for a file of the program finds it by the lists at the top of these.
func TestFilesOfTheProgram(t *testing.T) {
	for _, at := range []string{"cmd/cloopfs/main.go", "internal/line/doc.go"} {
		list, _, _ := strings.Cut(read(t, at), "\npackage ")
		for _, name := range files(t, "*.go") {
			base := path.Base(name)
			if path.Dir(name) != path.Dir(at) || strings.HasPrefix(base, "cmd_") || strings.HasSuffix(base, "_test.go") || name == at {
				continue
			}
			if !regexp.MustCompile(`[ (]` + regexp.QuoteMeta(base) + `\b`).MatchString(list) {
				t.Errorf("%s does not list %s", at, name)
			}
		}
		for _, m := range regexp.MustCompile(`\b\w+\.go\b`).FindAllString(list, -1) {
			if _, err := fs.Stat(tree, path.Join(path.Dir(at), m)); err != nil {
				t.Errorf("%s lists %s: %v", at, m, err)
			}
		}
	}
}

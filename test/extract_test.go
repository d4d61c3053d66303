//go:build integration

package test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A device that does not take what write(2) has taken is no success, whoever has opened it.
//
// The device's sectors lie in a sparse file on a tmpfs that has no room for them.
func TestOutputToFailingDevice(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(8*mib/(64*kib), 60*kib)...)
	_, url := serve(t, s.image)
	raw := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(raw, s.disk, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args    []string
		failure string
		want    string
	}{
		"extract":                        {[]string{cloopfs, "extract", url}, "write the disk: ", string(s.disk)},
		"extract to the standard output": {[]string{"sh", "-c", `"$0" extract "$1" - >"$2"`, cloopfs, url}, "write the disk: ", string(s.disk)},
		"create to the standard output": {
			[]string{"sh", "-c", `"$0" create "$1" - >"$2"`, cloopfs, raw}, "write the image: ", must(t, cloopfs, "create", raw, "-"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			tmpfs := makeTmpfs(t, "4m")
			file := filepath.Join(tmpfs, "stick")
			must(t, "truncate", "--size=8M", file)
			device := attachWith(t, file)
			args := slices.Concat(c.args[1:], []string{device})
			checkFailure(t, run(t, c.args[0], args...), 1, c.failure)

			must(t, "mount", "-o", "remount,size=16m", tmpfs)
			must(t, c.args[0], args...)
			checkBytes(t, "device", must(t, "cat", device)[:len(c.want)], []byte(c.want))
		})
	}
}

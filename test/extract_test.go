//go:build integration

package test

import (
	"path/filepath"
	"testing"
)

// A device that does not take what write(2) has taken is no success.
//
// The device's sectors lie in a sparse file on a tmpfs that has no room for them.
func TestExtractToFailingDevice(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(8*mib/(64*kib), 60*kib)...)
	_, url := serve(t, s.image)
	tmpfs := makeTmpfs(t, "4m")
	file := filepath.Join(tmpfs, "stick")
	must(t, "truncate", "--size=8M", file)
	device := attachWith(t, file)
	checkFailure(t, run(t, cloopfs, "extract", url, device), 1, "write the disk: ")

	must(t, "mount", "-o", "remount,size=16m", tmpfs)
	must(t, cloopfs, "extract", url, device)
	checkBytes(t, "device", must(t, "cat", device), s.disk)
}

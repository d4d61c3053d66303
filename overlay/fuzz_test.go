package overlay

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// FuzzFiles opens a directory with any files as an overlay. What opens shows in each
// cluster what its map says, takes a write, and is as it was when it is opened again.
func FuzzFiles(f *testing.F) {
	text := []byte(`{"version": 1, "base": {"source": "https://example.org/KNOPPIX", "size": 41060, "identity": "version 1"}}`)
	data, bits := bytes.Repeat([]byte("overlay"), int(testBase.Size)/7), []byte{0b101, 0b100}
	f.Add(text, data, bits, []byte(stateClean), true)
	f.Add(text, data, bits, []byte(stateOpen), false)
	f.Add(text, []byte{}, []byte{}, []byte{}, true)
	f.Add(text, data, []byte{0xff, 0xff}, []byte(stateClean), true) // behind the end
	f.Add(bytes.Replace(text, []byte("41060"), []byte("9223372036854775807"), 1), data, bits, []byte(stateClean), true)
	f.Add([]byte(`{"version": 2}`), data, bits, []byte(stateClean), true)
	f.Add([]byte("{"), data, bits, []byte(stateClean), true)
	f.Fuzz(func(t *testing.T, meta, data, bits, state []byte, sized bool) {
		path := filepath.Join(t.TempDir(), "overlay")
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if sized { // else it is refused for that
			data, bits = resized(data, testBase.Size), resized(bits, mapSize(testBase.Size))
		}
		for name, content := range map[string][]byte{metaName: meta, dataName: data, mapName: bits, stateName: state} {
			if err := os.WriteFile(filepath.Join(path, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, lookErr := Look(path)
		d, err := OpenOrMake(path, testBase)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, errVersion) || lookErr == nil {
				t.Errorf("open: %v, look: %v", err, lookErr)
			}
			return
		}
		disk, err := d.Disk(baseDisk{testBase.Size}, testBase, slog.New(slog.DiscardHandler))
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrBaseMismatch) {
				t.Errorf("disk: %v", err)
			}
			if err := d.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
				t.Error(err)
			}
			return
		}
		if lookErr != nil {
			t.Errorf("it opens, but look says %v", lookErr)
		}
		want := make([]byte, testBase.Size)
		for k := range clusterEnd(testBase.Size) {
			from, to := k*clusterSize, min((k+1)*clusterSize, testBase.Size)
			if bits[k/8]>>(k%8)&1 == 1 {
				copy(want[from:to], data[from:to])
			} else {
				copy(want[from:to], baseClusters[k])
			}
		}
		checkDisk(t, disk, want)
		copy(want[clusterSize-2:], "hello")
		if _, err := disk.WriteAtContext(t.Context(), []byte("hello"), clusterSize-2); err != nil {
			t.Fatal(err)
		}
		if err := disk.Close(); err != nil {
			t.Fatal(err)
		}
		disk = opened(t, path)
		checkDisk(t, disk, want)
		if err := disk.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// resized is p with zeros at its end, or without its end.
func resized(p []byte, size int64) []byte {
	return append(bytes.Clone(p[:min(int64(len(p)), size)]), make([]byte, max(0, size-int64(len(p))))...)
}

func checkDisk(t *testing.T, disk *Disk, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := disk.ReadAtContext(t.Context(), got, 0); err != nil {
		t.Fatal(err)
	}
	for k := range clusterEnd(int64(len(want))) {
		from, to := k*clusterSize, min((k+1)*clusterSize, int64(len(want)))
		if !bytes.Equal(got[from:to], want[from:to]) {
			t.Errorf("cluster %d has other bytes", k)
		}
	}
}

package line

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/cloop/clooptest"
	"github.com/cloopfs/cloopfs/internal/cli"
)

// An index that came wrong is read again where another file is told: if it may not be, what
// makes no sense may lie in that by now.
func TestIndexIsReadAgain(t *testing.T) {
	const bs, n = 512, 60
	disk := make([]byte, 100*bs)
	for i := range disk {
		disk[i] = byte(i / bs)
	}
	image := clooptest.Build(disk, bs)
	for _, c := range []struct {
		name   string
		etag   string
		cache  bool
		mended bool
	}{
		{"validated", `"1"`, false, true},
		{"validated, kept", `"1"`, true, true},
		{"validated weakly", `W/"1"`, false, false},
		{"validated weakly, kept", `W/"1"`, true, false},
		{"not validated", "", false, false},
		{"not validated, kept nevertheless", "", true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			flipped := bytes.Clone(image)
			flipped[136+8*n] ^= 1
			content := flipped
			host := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if c.etag != "" {
					w.Header().Set("ETag", c.etag)
				}
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
			})
			opt := Options{Connections: 1, Format: formatAuto}
			if c.cache {
				opt.Cache = CacheOptions{Dir: cli.Name(t.TempDir() + "/cache"), Size: 1 << 30, TrustSize: true}
			}
			l, err := Open(t.Context(), Location{URL: host + "/image"}, opt, 1<<20, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			content = image
			for range 2 {
				block := make([]byte, bs)
				_, err := l.Disk().ReadAtContext(t.Context(), block, n*bs)
				if c.mended && (err != nil || !bytes.Equal(block, disk[n*bs:(n+1)*bs])) || !c.mended && !errors.Is(err, cloop.ErrCorrupt) {
					t.Errorf("%v, want that the index is read again: %v", err, c.mended)
				}
			}
		})
	}
}

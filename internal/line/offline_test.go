package line

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/internal/cli"
)

// Offline, the query tells files apart as it does for the server.
func TestOfflineQuery(t *testing.T) {
	contents := map[string]string{"f=a": strings.Repeat("a", 10_000), "f=b": strings.Repeat("b", 20_000)}
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		data := contents[r.URL.RawQuery]
		w.Header().Set("ETag", `"`+r.URL.RawQuery+`"`)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(data))
	})
	opt := Options{Connections: 1, Cache: CacheOptions{Dir: cli.Name(t.TempDir() + "/cache"), Size: 1 << 30}}
	read := func(query string, offline bool) (string, error) {
		t.Helper()
		opt.Cache.Offline = offline
		f, err := openFile(t.Context(), Location{URL: host + "/dl?" + query}, opt, slog.New(slog.DiscardHandler))
		if err != nil {
			return "", Failure(err)
		}
		defer f.Close()
		p := make([]byte, f.source.Size())
		if _, err := f.source.ReadAtContext(t.Context(), p, 0); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		return string(p), nil
	}
	for _, offline := range []bool{false, true} {
		for _, query := range []string{"f=a", "f=b"} {
			if got, err := read(query, offline); got != contents[query] || err != nil {
				t.Errorf("%s, offline %v: %.10q, %v; want %.10q", query, offline, got, err, contents[query])
			}
		}
	}
	_, err := read("f=c", true)
	var f *cli.Error
	if !errors.Is(err, cache.ErrAmbiguous) || !errors.As(err, &f) || f.Code != cli.ExitSource || !strings.Contains(f.Hint, "--cache-key") {
		t.Errorf("a query that is not known: %+v", err)
	}
}

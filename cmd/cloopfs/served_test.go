package main

import (
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/blockio"
)

// A mount does not wait for its cache to be within its bounds, signals neither: that may
// take long.
func TestBesideEnforcesBounds(t *testing.T) {
	_, image := smallImage()
	url := serve(t, func(w http.ResponseWriter, r *http.Request) { content(w, r, image) })
	dir := t.TempDir()
	flags := []string{"--min-free=0", "--cache-dir", dir, "--cache-size"}
	b := &bringing{line: openLine(t, append(flags, "1GiB"), url), class: blockio.Fill, workers: 1}
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := &served{line: openLine(t, append(flags, "4KiB"), url)}
	// Another process is throwing away.
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	begun, warned := make(chan struct{}), make(chan struct{})
	d.log = slog.New(onLine(func(string) {
		<-begun
		close(warned)
	}))
	defer time.AfterFunc(time.Minute, func() { panic("it waits for the cache") }).Stop()
	stop := d.beside(t.Context())
	close(begun)
	<-warned // that it could not be done
	stop()
}

package fetch_test

import (
	"context"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/fetch"
)

// Filling uses two requests at a time, and begins none while a reader waits.
func TestFillYields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(100, 1000)...)
		var mu sync.Mutex
		flying := make(map[blockio.Class]int)
		src.Open = func(ctx context.Context, r blockio.Range, body io.Reader) (io.Reader, error) {
			mu.Lock()
			flying[r.Class]++
			if r.Class == blockio.Fill && (flying[blockio.Demand] > 0 || flying[blockio.Fill] > 2) {
				t.Errorf("filling began with %v under way", flying)
			}
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			flying[r.Class]--
			mu.Unlock()
			return body, nil
		}
		s := fetch.New(src, ext, fetch.Options{MaxRequest: 5000})
		defer s.Close()
		var readers sync.WaitGroup
		readers.Go(func() {
			if err := s.ReadRun(t.Context(), blockio.Fill, 0, 50, ignore); err != nil {
				t.Error(err)
			}
		})
		begin := time.Now()
		for i := range int64(4) { // while the fill's first requests are under way, and later
			time.Sleep(1500 * time.Millisecond)
			readers.Go(func() {
				asked := time.Now()
				if err := s.ReadRun(t.Context(), blockio.Demand, 60+10*i, 5, ignore); err != nil {
					t.Error(err)
				}
				if waited := time.Since(asked); waited != time.Second {
					t.Errorf("a reader waited %v for a request of a second", waited)
				}
			})
		}
		readers.Wait()
		// Ten requests of a second, two at a time, but for what readers held up.
		if took := time.Since(begin); took < 5*time.Second || took > 10*time.Second {
			t.Errorf("filling took %v", took)
		}
	})
}

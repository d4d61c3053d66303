package httpblock_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/httpblock"
)

// All streams share one limit, and waiting for it is nobody's fault.
func TestRate(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(200_000)
		requests := 0
		var mu sync.Mutex
		url := net.serve(t, func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			requests++
			mu.Unlock()
			content206(w, r, data)
		})
		s := net.open(t, url, httpblock.Options{Timeout: time.Second, Rate: 100_000})
		begin := time.Now()
		var readers sync.WaitGroup
		for i := range 10 {
			readers.Go(func() { readRange(t, s, data, int64(10_000+i*18_000), 18_000) })
		}
		readers.Wait()
		// What each stream reads last is not waited for. No bound from above: the machine
		// may be slow, the line may not be fast.
		if took := time.Since(begin); took < 1200*time.Millisecond {
			t.Errorf("180,000 bytes took %v at 100,000 a second", took)
		}
		if requests != 11 {
			t.Errorf("%d requests, want one for each range and one at the start: none was given up", requests)
		}
	})
}

package blockiotest

import (
	"math/rand/v2"
	"sync"
)

// inParallel calls do so many times in each of four goroutines, the same each time.
func inParallel(times int, do func(rnd *rand.Rand)) {
	var wg sync.WaitGroup
	for seed := range uint64(4) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, seed))
			for range times {
				do(rnd)
			}
		})
	}
	wg.Wait()
}

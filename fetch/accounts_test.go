package fetch

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// faultyLine fails each tenth request.
type faultyLine struct {
	*simLine
	requests int
}

func (l *faultyLine) OpenRange(ctx context.Context, r blockio.Range) (io.ReadCloser, error) {
	l.mu.Lock()
	l.requests++
	bad := l.requests%10 == 0
	l.mu.Unlock()
	if bad {
		time.Sleep(l.rtt)
		return nil, errors.New("down")
	}
	return l.simLine.OpenRange(ctx, r)
}

// When everything has been read and nothing is under way, nothing counts as brought in
// vain, as on its way or as taking room: what counts for ever is missing from a bound.
func TestAccountsAreClosed(t *testing.T) {
	for name, store := range map[string]blockio.BlockStore{"no store": nil, "a store": &simStore{have: make(map[int64]bool)}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				image := make(simImage, 600)
				for n := range image {
					image[n] = blockio.Extent{Off: int64(n) * 10_000, Len: 10_000}
				}
				line := &faultyLine{simLine: newSimLine(50*time.Millisecond, 50)}
				s := New(line, image, Options{Trip: line.Trip, Ahead: true, Keep: 64 << 20, Store: store})
				defer s.Close()
				rnd := rand.New(rand.NewPCG(5, 6))
				var trace []blockio.Span
				for _, n := range rnd.Perm(200) {
					trace = append(trace, blockio.Span{First: int64(n), Count: 1})
				}
				s.Replay(trace)
				read := func(first, count int64, patience time.Duration) {
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					_ = s.ReadRun(ctx, blockio.Demand, first, count, func(int64, []byte) error { return nil })
				}
				var readers sync.WaitGroup
				for range 300 {
					first, patience := rnd.Int64N(590), time.Duration(rnd.Int64N(int64(time.Second/5)))
					readers.Go(func() { read(first, 1+first%10, patience) })
					time.Sleep(5 * time.Millisecond)
				}
				readers.Wait()
				time.Sleep(time.Minute)
				for n := range image.Blocks() {
					read(n, 1, time.Minute)
				}
				time.Sleep(time.Minute) // for what was brought meanwhile
				for n := range image.Blocks() {
					read(n, 1, time.Minute)
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				if s.ahead != [blockio.Classes]int64{} || s.loose != 0 {
					t.Errorf("brought in vain: %v bytes, not in the store: %d", s.ahead, s.loose)
				}
				if s.active != [blockio.Classes]int{} || s.due != 0 || s.waited != 0 {
					t.Errorf("under way: %v requests, %d bytes, %d of readers", s.active, s.due, s.waited)
				}
				if !s.demand.sem.TryAcquire(s.demand.size) {
					t.Error("some of the room for readers is still taken")
				}
				users := 0
				for _, b := range s.blocks {
					users = max(users, b.users)
				}
				if users > 1 {
					t.Errorf("a block that nobody reads has %d users", users)
				}
			})
		})
	}
}

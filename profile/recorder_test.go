package profile_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/profile"
)

// slow is blocks that take a second, or fail.
type slow struct {
	blockio.Runs
	err error
}

func (s slow) ReadRun(context.Context, blockio.Class, int64, int64, func(int64, []byte) error) error {
	time.Sleep(time.Second)
	return s.err
}

// handy is blocks that can be taken.
type handy struct {
	blockio.Runs
	had []int64
}

func (h *handy) Take(n int64, deliver func(int64, []byte) error) bool { return deliver(n, nil) == nil }
func (h *handy) Had(n int64)                                          { h.had = append(h.had, n) }

// What is taken is noted when it is had, not before.
func TestRecorderOfTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below := new(handy)
		rec := profile.NewRecorder(below, of)
		for _, n := range []int64{7, 8, 9} {
			if !rec.Take(n, func(int64, []byte) error { return nil }) {
				t.Errorf("block %d can't be taken", n)
			}
		}
		if rec.Take(7, func(int64, []byte) error { return errors.New("bad") }) {
			t.Error("a bad block was taken")
		}
		rec.Had(8)
		if diff := cmp.Diff([]profile.Run{{First: 8, Count: 1, Gap: time.Microsecond}}, rec.Profile().Runs); diff != "" {
			t.Errorf("noted (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]int64{8}, below.had); diff != "" {
			t.Errorf("passed on (-want +got):\n%s", diff)
		}
		if profile.NewRecorder(slow{}, of).Take(1, func(int64, []byte) error { return nil }) {
			t.Error("a block was taken from who has none")
		}
	})
}

// read is a read that begins at a time.
type read struct {
	at           time.Duration
	class        blockio.Class
	first, count int64
}

func TestRecorder(t *testing.T) {
	const s = time.Second
	tests := []struct {
		name  string
		reads []read
		want  []profile.Run
	}{
		{"nothing", nil, nil},
		{"at once", []read{{0, 0, 5, 2}}, []profile.Run{{5, 2, time.Microsecond}}},
		{"one after the other", []read{{s / 2, 0, 5, 2}, {4 * s, 0, 1, 1}}, []profile.Run{{5, 2, s / 2}, {1, 1, 5 * s / 2}}},
		{"a long pause", []read{{2 * time.Hour, 0, 5, 2}}, []profile.Run{{5, 2, time.Hour}}},
		{"first uses only", []read{{s, 0, 5, 2}, {3 * s, 0, 4, 4}, {5 * s, 0, 5, 1}, {7 * s, 0, 9, 1}}, []profile.Run{{5, 2, s}, {4, 1, s}, {7, 1, 0}, {9, 1, s}}},
		{"one behind the other", []read{{s, 0, 5, 1}, {3 * s, 0, 5, 2}}, []profile.Run{{5, 1, s}, {6, 1, s}}},
		{"at the same time", []read{{s, 0, 5, 1}, {s * 3 / 2, 0, 9, 1}, {s * 3, 0, 20, 1}}, []profile.Run{{5, 1, s}, {9, 1, 0}, {20, 1, s / 2}}},
		{"what nobody waits for", []read{{s, blockio.ReadAhead, 1, 1}, {s, blockio.Fill, 3, 1}, {4 * s, 0, 5, 1}}, []profile.Run{{5, 1, 4 * s}}},
		{"what is not in the image", []read{{s, 0, 99, 5}, {3 * s, 0, 200, 5}}, []profile.Run{{99, 1, s}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				why := errors.New("as below")
				rec := profile.NewRecorder(slow{err: why}, of)
				for _, r := range test.reads {
					go func() {
						time.Sleep(r.at)
						if err := rec.ReadRun(t.Context(), r.class, r.first, r.count, nil); !errors.Is(err, why) {
							t.Errorf("got the error %v, want %v", err, why)
						}
					}()
				}
				time.Sleep(3 * time.Hour)
				if diff := cmp.Diff(&profile.Profile{Image: of, Runs: test.want}, rec.Profile()); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				if rec.Runs() != len(test.want) {
					t.Errorf("%d runs, want %d", rec.Runs(), len(test.want))
				}
			})
		})
	}
}

// However many runs there are, what was noted is a profile.
func TestRecorderIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		im := profile.Image{Size: 1, Blocks: 4 * maxRuns, Identity: "x"}
		rec := profile.NewRecorder(slow{}, im)
		for n := range int64(maxRuns + 1000) {
			_ = rec.ReadRun(t.Context(), blockio.Demand, 3*n, 2, nil) // it does not fail
		}
		p := rec.Profile()
		if len(p.Runs) != maxRuns || p.Blocks() != 2*maxRuns {
			t.Errorf("got %d runs of %d blocks, want %d of %d", len(p.Runs), p.Blocks(), maxRuns, 2*maxRuns)
		}
	})
}

package deflate

import (
	"math"
	"testing"
)

func TestLogarithms(t *testing.T) {
	for n := int64(1); n < 1<<40; n += 1 + n/50 {
		got, want := float64(log2(n))/oneBit, math.Log2(float64(n))
		if math.Abs(got-want) > 0.001 {
			t.Errorf("log2(%d) = %f, want %f", n, got, want)
		}
		if back := exp2(log2(n)); math.Abs(float64(back)/float64(n)-1) > 0.1 && n > 20 {
			t.Errorf("exp2(log2(%d)) = %d", n, back)
		}
	}
}

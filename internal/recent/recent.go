// Package recent remembers the largest of the values that were seen lately.
package recent

import (
	"sync"
	"time"
)

// Max is the largest of the values of the last Period or, before they are forgotten,
// of up to twice that. The zero value of the other fields is ready. It is safe for
// concurrent use.
type Max struct {
	Period time.Duration

	// mu guards the fields below.
	mu          sync.Mutex
	begin       time.Time // of this period
	any, anyOld bool      // in this period, and in the one before
	now, before float64   // the largest of each
}

// Add adds a value, seen now.
func (m *Max) Add(v float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn()
	if !m.any || v > m.now {
		m.now, m.any = v, true
	}
}

// Value is the largest; ok is false if there is none.
func (m *Max) Value() (v float64, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn()
	switch {
	case m.any && m.anyOld:
		return max(m.now, m.before), true
	case m.anyOld:
		return m.before, true
	default:
		return m.now, m.any
	}
}

// turn begins a new period if this one is over.
func (m *Max) turn() {
	now := time.Now()
	switch d := now.Sub(m.begin); {
	case d < m.Period:
		return
	case d < 2*m.Period:
		m.before, m.anyOld = m.now, m.any
	default:
		m.before, m.anyOld = 0, false
	}
	m.begin, m.now, m.any = now, 0, false
}

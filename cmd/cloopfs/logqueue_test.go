package main

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// slowWriter is a log that takes its time.
type slowWriter struct {
	takes time.Duration
	mu    sync.Mutex
	text  strings.Builder
}

func (w *slowWriter) Write(p []byte) (int, error) {
	time.Sleep(w.takes)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *slowWriter) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// What was logged is written before the process ends, in order, with what is said of
// loggers made of the first.
func TestLogQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &slowWriter{takes: time.Millisecond}
		log, queue := newLogQueue(slog.NewTextHandler(w, nil))
		log.Debug("not for this log")
		for n := range 100 {
			log.With("from", "a test").WithGroup("g").Info("line", "n", n)
		}
		queue.Close()
		queue.Close()
		log.Info("too late")
		lines := strings.Split(strings.TrimSuffix(w.String(), "\n"), "\n")
		if len(lines) != 100 {
			t.Fatalf("%d lines were written, want 100", len(lines))
		}
		for n, line := range lines {
			if want := fmt.Sprintf(`msg=line from="a test" g.n=%d`, n); !strings.HasSuffix(line, want) {
				t.Fatalf("line %d is %q, want ...%q", n, line, want)
			}
		}
	})
}

// A log that is stuck holds nobody up, not even the process's end, and tells what it
// has missed when it goes on.
func TestLogQueueStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const more = 10
		w := &slowWriter{takes: time.Hour}
		log, queue := newLogQueue(slog.NewTextHandler(w, nil))
		begin := time.Now()
		log.Info("first")
		synctest.Wait() // it is being written
		for range maxLogged + more {
			log.Info("line")
		}
		if d := time.Since(begin); d > 0 {
			t.Errorf("logging took %v, want no time", d)
		}
		time.Sleep(150 * time.Minute) // two are written
		if text := w.String(); !strings.Contains(text, fmt.Sprintf("lines=%d", more)) {
			t.Errorf("the log is %q, want a word about %d lines that are missing", text, more)
		}
		begin = time.Now()
		queue.Close()
		if d := time.Since(begin); d != logTime {
			t.Errorf("the end took %v, want %v", d, logTime)
		}
		time.Sleep(2 * maxLogged * time.Hour) // else the test's bubble would not end
	})
}

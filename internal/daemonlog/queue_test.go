package daemonlog

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
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
func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &slowWriter{takes: time.Millisecond}
		log, queue := newQueue(slog.NewTextHandler(w, nil))
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

// A log that is stuck holds nobody up, not even the process's end.
func TestQueueStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &slowWriter{takes: time.Hour}
		log, queue := newQueue(slog.NewTextHandler(w, nil))
		begin := time.Now()
		for range 2 * maxLogged {
			log.Info("line")
		}
		if d := time.Since(begin); d > 0 {
			t.Errorf("logging took %v, want no time", d)
		}
		queue.Close()
		if d := time.Since(begin); d != logTime {
			t.Errorf("the end took %v, want %v", d, logTime)
		}
		time.Sleep(2 * maxLogged * time.Hour)
		queue.records <- logged{} // else the test's bubble would not end
	})
}

// Lines that a log has missed are told of where they would have been, and only if they would
// have been in it.
func TestQueueMissing(t *testing.T) {
	note := func(level string, lines int) string {
		return fmt.Sprintf(`level=%s msg="the log was too slow: lines are missing" lines=%d`, level, lines)
	}
	tests := []struct {
		name  string
		level slog.Level // of the log
		lost  []slog.Level
		next  string // logged when there is room again, empty: nothing
		want  []string
	}{
		{"before what comes next", slog.LevelInfo, []slog.Level{slog.LevelInfo, slog.LevelWarn, slog.LevelInfo}, "next", []string{note("WARN", 3), "level=ERROR msg=next"}},
		{"at the end", slog.LevelInfo, []slog.Level{slog.LevelInfo}, "", []string{note("INFO", 1)}},
		{"errors alone", slog.LevelError, []slog.Level{slog.LevelError, slog.LevelWarn}, "next", []string{note("ERROR", 1), "level=ERROR msg=next"}},
		{"nothing that matters", slog.LevelError, []slog.Level{slog.LevelWarn, slog.LevelInfo}, "next", []string{"level=ERROR msg=next"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &slowWriter{takes: time.Second}
				options := &slog.HandlerOptions{Level: tt.level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
					if a.Key == slog.TimeKey {
						return slog.Attr{}
					}
					return a
				}}
				log, queue := newQueue(slog.NewTextHandler(w, options))
				log.Error("first")
				synctest.Wait() // it is being written
				want := []string{"level=ERROR msg=first"}
				for range maxLogged {
					log.Error("old")
					want = append(want, "level=ERROR msg=old")
				}
				for _, level := range tt.lost {
					log.With("from", "a test").Log(t.Context(), level, "lost")
				}
				time.Sleep(1500 * time.Millisecond) // the first is written, the second not
				if tt.next != "" {
					log.Error(tt.next)
				}
				time.Sleep(2 * maxLogged * time.Second)
				got := strings.Split(strings.TrimSuffix(w.String(), "\n"), "\n")
				if diff := cmp.Diff(append(want, tt.want...), got); diff != "" {
					t.Errorf("the log (-want +got):\n%s", diff)
				}
				queue.Close()
			})
		})
	}
}

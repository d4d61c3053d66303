package daemonlog

import (
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// severities records what was sent to syslog.
type severities []string

func (s *severities) add(severity, text string) error {
	*s = append(*s, severity+": "+text)
	return nil
}

func (s *severities) Debug(text string) error   { return s.add("debug", text) }
func (s *severities) Info(text string) error    { return s.add("info", text) }
func (s *severities) Warning(text string) error { return s.add("warning", text) }
func (s *severities) Err(text string) error     { return s.add("err", text) }

// A line has the severity that its level stands for.
func TestSyslogSeverity(t *testing.T) {
	var got severities
	log := slog.New(newSyslogHandler(&got, slog.LevelDebug))
	log.Debug("one")
	log.Info("two")
	log.With("a", 1).Warn("three", "b", 2)
	log.WithGroup("g").Error("four", "time", "kept")
	log.Log(t.Context(), slog.LevelError+4, "five")
	log = slog.New(newSyslogHandler(&got, slog.LevelWarn))
	log.Info("not wanted")
	log.Warn("six")
	want := severities{
		"debug: level=DEBUG msg=one\n",
		"info: level=INFO msg=two\n",
		"warning: level=WARN msg=three a=1 b=2\n",
		"err: level=ERROR msg=four g.time=kept\n",
		"err: level=ERROR+4 msg=five\n",
		"warning: level=WARN msg=six\n",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

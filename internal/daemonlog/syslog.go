package daemonlog

import (
	"bytes"
	"context"
	"log/slog"
	"log/syslog"
	"sync"
)

// priorityWriter is the part of [syslog.Writer] that is used: a method for each
// severity.
type priorityWriter interface {
	Debug(string) error
	Info(string) error
	Warning(string) error
	Err(string) error
}

var _ priorityWriter = (*syslog.Writer)(nil)

// syslogHandler sends records to syslog, which has a time of its own, with the
// severity that their level stands for.
type syslogHandler struct {
	slog.Handler // writes into text
	*syslogLine
}

// syslogLine is what a handler and those made of it share.
type syslogLine struct {
	to priorityWriter
	// mu guards the field below.
	mu   sync.Mutex
	text bytes.Buffer
}

func newSyslogHandler(to priorityWriter, level slog.Level) *syslogHandler {
	line := &syslogLine{to: to}
	return &syslogHandler{slog.NewTextHandler(&line.text, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey && len(groups) == 0 {
				return slog.Attr{}
			}
			return a
		},
	}), line}
}

func (h *syslogHandler) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.text.Reset()
	if err := h.Handler.Handle(ctx, r); err != nil {
		return err
	}
	text := h.text.String()
	switch {
	case r.Level >= slog.LevelError:
		return h.to.Err(text)
	case r.Level >= slog.LevelWarn:
		return h.to.Warning(text)
	case r.Level >= slog.LevelInfo:
		return h.to.Info(text)
	}
	return h.to.Debug(text)
}

func (h *syslogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &syslogHandler{h.Handler.WithAttrs(attrs), h.syslogLine}
}

func (h *syslogHandler) WithGroup(name string) slog.Handler {
	return &syslogHandler{h.Handler.WithGroup(name), h.syslogLine}
}

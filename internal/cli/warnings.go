package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
)

// Warnings is the log of a command that keeps none: what a user should know is
// said on w.
func Warnings(w io.Writer) *slog.Logger { return slog.New(&warningHandler{w: w}) }

// warningHandler writes warnings as messages of the program.
type warningHandler struct {
	w     io.Writer
	attrs []slog.Attr
}

func (h *warningHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn
}

func (h *warningHandler) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	var details []string
	add := func(a slog.Attr) bool {
		if a.Key == "error" {
			text += fmt.Sprintf(": %v", a.Value)
		} else {
			details = append(details, fmt.Sprintf("%s %v", a.Key, a.Value))
		}
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	if len(details) > 0 {
		text += " (" + strings.Join(details, ", ") + ")"
	}
	Say(h.w, "%s", text)
	return nil
}

func (h *warningHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &warningHandler{h.w, append(slices.Clone(h.attrs), attrs...)}
}

func (h *warningHandler) WithGroup(string) slog.Handler { return h }

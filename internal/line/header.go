package line

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/cloopfs/cloopfs/httpblock"
)

// headerFlag collects the values of --header. It never shows the values of
// headers, and leaves errors to read: the flags' library would show them.
type headerFlag []string

func (h *headerFlag) Set(s string) error {
	*h = append(*h, s)
	return nil
}

// String returns the names of headers and files.
func (h *headerFlag) String() string {
	var shown []string
	for _, s := range *h {
		name, _, ok := strings.Cut(s, ":")
		switch {
		case strings.HasPrefix(s, "@"):
			shown = append(shown, s)
		case ok:
			shown = append(shown, name)
		}
	}
	return strings.Join(shown, ",")
}

func (h *headerFlag) Type() string { return "HEADER" }

// read returns the headers, those in files among them.
func (h *headerFlag) read(ctx context.Context) (http.Header, error) {
	header := make(http.Header)
	for _, s := range *h {
		name, isFile := strings.CutPrefix(s, "@")
		if !isFile {
			if err := addHeader(header, s); err != nil {
				return nil, fmt.Errorf("--header: %w", err)
			}
			continue
		}
		text, err := readSmall(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("--header @%w", err)
		}
		n := 0
		for line := range strings.Lines(string(text)) {
			n++
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' {
				continue
			}
			if err := addHeader(header, line); err != nil {
				return nil, fmt.Errorf("--header @%s, line %d: %w", name, n, err)
			}
		}
	}
	return header, nil
}

// addHeader adds "Name: value". The error does not show the value.
func addHeader(header http.Header, s string) error {
	name, value, ok := strings.Cut(s, ":")
	if !ok {
		return errors.New("not of the form 'Name: value'")
	}
	value = strings.TrimSpace(value)
	if err := httpblock.CheckHeader(name, value); err != nil {
		return err
	}
	header.Add(name, value)
	return nil
}

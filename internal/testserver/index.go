package testserver

import (
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// list answers with links to all files. They are not paced, and not counted as bytes.
func (x *exchange) list() {
	x.srv.mu.Lock()
	names := slices.Sorted(maps.Keys(x.srv.files))
	x.srv.mu.Unlock()
	var page strings.Builder
	for _, name := range names {
		link := url.URL{Path: name}
		fmt.Fprintf(&page, "<a href=\"%s\">%s</a>\n", html.EscapeString(link.String()), html.EscapeString(name))
	}
	x.Header().Set("Content-Type", "text/html; charset=utf-8")
	x.answer(http.StatusOK)
	_, _ = x.ResponseWriter.Write([]byte(page.String())) // the client may have left
}

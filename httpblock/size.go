package httpblock

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
)

// learnSize asks a server that does not say how large the file is for its last
// byte: where that lies says it. pin is what the first response said, got the
// number of bytes that it brought.
func (v *server) learnSize(ctx context.Context, at *url.URL, pin *pinned, got int64) (int64, error) {
	resp, err := v.request(ctx, at, "bytes=-1", false)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	last, err := judgeLast(resp, pin)
	if err == nil && last.off+1 < got {
		err = errNoSize
	}
	return last.off + 1, err
}

var errNoSize = fmt.Errorf("%w: the server does not say how large the file is", errProtocol)

// judgeLast judges the response to a request for the last byte of a file whose
// size is not known.
func judgeLast(resp *http.Response, pin *pinned) (span, error) {
	switch {
	case resp.StatusCode == http.StatusOK, resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return span{}, errNoSize // it does not know the last bytes of a file
	case resp.StatusCode != http.StatusPartialContent:
		return span{}, statusError(resp)
	}
	got, err := parseContentRange(resp.Header.Get("Content-Range"))
	if err != nil || got.n != 1 || got.size != unknown && got.size != got.off+1 {
		return span{}, errNoSize
	}
	return got, pin.compare(resp, got.off+1)
}

// Package httpblock reads a file on a web server by HTTP Range requests.
//
// A [Source] is opened once, which pins the file's size and validators (ETag,
// Last-Modified); from then on every response is judged by itself before its
// bytes are used, so a file that changes on the server is noticed at the first
// byte (ErrChanged), never mixed. Passing faults (lost connections, stalls,
// cut-off bodies, 5xx, 429) are mended by requesting what is missing again,
// with back-off, until nothing has arrived for Options.Timeout. Where redirects
// led to is kept, and they are followed anew when that place refuses or fails:
// what is found then is compared with what was read before. Requests are
// HTTP/1.1 GETs over kept connections; there is no HEAD, no conditional
// request and no multi-range. See RFC 9110, section 14.
//
// Who we are goes to the scheme, host and port of the URL that was opened, and
// nowhere else. No error or log line shows it, a URL's password, or the values
// of a query.
// Source is safe for concurrent use.
package httpblock

// Package testserver is an HTTP server for tests, demonstrations and
// benchmarks of programs that read files with Range requests. It simulates a
// line (round trip time, rate, buffer, slow start), injects faults, and counts what its
// clients ask for.
//
// A new Server is plain, fast and correct; [Server.Set] makes it otherwise:
//
//	srv, err := testserver.New()
//	...
//	defer srv.Close()
//	srv.AddBytes("disk.cloop", image)
//	srv.Set(func(c *testserver.Config) { c.RTT = 50 * time.Millisecond })
//	resp, err := http.Get(srv.URL("disk.cloop"))
//
// It answers GET and HEAD. One range is followed (bytes=a-b, bytes=a-,
// bytes=-n); several ranges, or a Range header that makes no sense, are answered
// with the whole file, as RFC 9110 section 14.2 allows. Preconditions (If-Range,
// If-None-Match, ...) are those of [http.ServeContent]. For clients that look into
// directories the root is a page with links to all files.
//
// The line is simulated where a response is written, by sleeping: only the bytes
// of bodies count, not those of headers, and what the client sends costs nothing.
// It is no substitute for a real network: nothing is lost or reordered.
//
// All methods may be called at any time from any goroutine.
package testserver

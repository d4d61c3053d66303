//go:build integration

package test

import (
	"net/http"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// wrongly is a server that is wrong in one way, so often (-1: always).
func wrongly(w testserver.Wrong, times int) testserver.Config {
	return testserver.Config{Wrong: w, WrongTimes: times}
}

// busy is a server that has enough to do, so often (-1: always).
func busy(status, times int, retryAfter string) testserver.Config {
	return testserver.Config{Status: status, StatusTimes: times, RetryAfter: retryAfter}
}

// busyUntil has a server that is busy name a date.
func busyUntil(in time.Duration) func(*testing.T, *origin) {
	return func(_ *testing.T, o *origin) {
		date := time.Now().Add(in).UTC().Format(http.TimeFormat)
		o.srv.Set(func(c *testserver.Config) { c.RetryAfter = date })
	}
}

// replaced puts another file of the same size in the image's place.
func replaced(_ *testing.T, o *origin) { o.srv.AddBytes("disk.cloop", o.other.image) }

// misbehaviours are the rows of the matrix. What can pass is there twice: for ever, and for
// some answers only.
var misbehaviours = []misbehaviour{
	// Connections.
	{name: "connection refused", begin: down, end: up, refused: "connection refused", fails: "connection refused"},
	{name: "connection refused for a while", begin: downFor(time.Second), end: up},
	{name: "reset", wrong: testserver.Config{Reset: -1}, refused: "connection reset", fails: "connection reset"},
	{name: "reset three times", wrong: testserver.Config{Reset: 3}},
	{name: "reset in the body", wrong: wrongly(testserver.ResetInBody, -1), refused: "connection reset", fails: "gave up after 2s"},
	{name: "reset in three bodies", wrong: wrongly(testserver.ResetInBody, 3)},
	{name: "HTTP/1.0, a connection for each answer", wrong: wrongly(testserver.HTTP10, -1)},

	// Silence.
	{name: "stall before the headers", wrong: testserver.Config{Hang: testserver.HangBeforeHeaders}, refused: "no data arrived", fails: "no data arrived"},
	{name: "stall before the headers for a while", wrong: testserver.Config{Hang: testserver.HangBeforeHeaders}, begin: mendIn(time.Second)},
	{name: "stall in the body", wrong: testserver.Config{Hang: testserver.HangMidBody}, refused: "no data arrived", fails: "gave up after 2s"},
	{name: "stall in the body for a while", wrong: testserver.Config{Hang: testserver.HangMidBody}, begin: mendIn(time.Second)},
	{name: "a byte in a second", wrong: wrongly(testserver.Drip, -1), refused: "no data arrived", fails: "gave up after 2s"},
	{name: "one answer of a byte in a second", wrong: wrongly(testserver.Drip, 1)},

	// Bodies.
	{name: "short body", wrong: testserver.Config{Truncate: -1}, refused: "unexpected EOF", fails: "gave up after 2s"},
	{name: "three short bodies", wrong: testserver.Config{Truncate: 3}},
	{name: "short body, announced", wrong: wrongly(testserver.ShortLength, -1), refused: "invalid answer: a body of", fails: "invalid answer: a body of"},
	{name: "long body", wrong: wrongly(testserver.LongBody, -1)},
	{name: "long body, announced", wrong: wrongly(testserver.LongLength, -1), refused: "invalid answer: a body of", fails: "invalid answer: a body of"},
	{name: "long body to the end of the connection", wrong: wrongly(testserver.LongUnsized, -1)},
	{name: "gzip", wrong: wrongly(testserver.Gzipped, -1), refused: `encoded (Content-Encoding "gzip")`, fails: `encoded (Content-Encoding "gzip")`},
	{name: "multipart", wrong: wrongly(testserver.Multipart, -1), refused: "invalid answer: \"multipart/byteranges", fails: "invalid answer: \"multipart/byteranges"},

	// Ranges.
	{name: "wrong start", wrong: wrongly(testserver.WrongStart, -1), refused: "invalid answer: Content-Range", fails: "invalid answer: Content-Range"},
	// Who has seen no other total believes it.
	{name: "wrong total", wrong: wrongly(testserver.WrongTotal, -1), fails: "image changed on the server (size"},
	{name: "no total", wrong: wrongly(testserver.NoTotal, -1)},
	{name: "earlier end than asked", wrong: wrongly(testserver.EarlyEnd, -1)},
	{name: "200", wrong: testserver.Config{IgnoreRange: true}, refused: "server ignores Range requests", fails: "server ignores Range requests"},
	{name: "416", wrong: busy(416, -1, ""), refused: "the file is empty", code: 3, fails: "image changed on the server (answered 416"},

	// Headers.
	{name: "header of 1 MB", wrong: wrongly(testserver.LargeHeader, -1), refused: "headers exceeded", fails: "headers exceeded"},
	{name: "one header of 1 MB", wrong: wrongly(testserver.LargeHeader, 1)},
	{name: "429 with seconds", wrong: busy(429, -1, "60"), refused: "429 Too Many Requests", fails: "429 Too Many Requests"},
	{name: "429 with a date", wrong: busy(429, -1, ""), begin: busyUntil(time.Minute), refused: "429 Too Many Requests", fails: "429 Too Many Requests"},
	{name: "429 with a second", wrong: busy(429, 1, "1")},
	{name: "429 with a date that comes", wrong: busy(429, 1, ""), begin: busyUntil(time.Second)},
	{name: "503 with seconds", wrong: busy(503, -1, "60"), refused: "503 Service Unavailable", fails: "503 Service Unavailable"},
	{name: "503 with a date", wrong: busy(503, -1, ""), begin: busyUntil(time.Minute), refused: "503 Service Unavailable", fails: "503 Service Unavailable"},
	{name: "503 with a second", wrong: busy(503, 1, "1")},
	{name: "503 with a date that comes", wrong: busy(503, 1, ""), begin: busyUntil(time.Second)},

	// Versions. Without a validator, and with one that stays, a block's checksum tells
	// that the file is another, if its blocks lie elsewhere.
	{name: "ETag changed", wrong: testserver.Config{ETag: `"other"`}, later: true, fails: `image changed on the server (ETag`},
	{name: "replaced", begin: replaced, later: true, fails: `image changed on the server (ETag`},
	{name: "replaced, weak ETag", server: testserver.Config{ETag: `W/"a"`}, wrong: testserver.Config{ETag: `W/"b"`}, begin: replaced, later: true, fails: `image changed on the server (ETag W/"a" -> W/"b")`},
	{name: "replaced, weak ETag that stays", server: testserver.Config{ETag: `W/"a"`}, wrong: testserver.Config{ETag: `W/"a"`}, begin: replaced, later: true, fails: "corrupt"},
	{name: "replaced, weak ETag that stays, cached", at: cached, server: testserver.Config{ETag: `W/"a"`}, wrong: testserver.Config{ETag: `W/"a"`}, begin: replaced, later: true, fails: "corrupt"},
	{name: "replaced, no ETag, Last-Modified that stays", server: testserver.Config{NoETag: true}, wrong: testserver.Config{NoETag: true}, begin: replaced, later: true, fails: "corrupt"},
	{name: "replaced, no validator", server: noValidator, wrong: noValidator, begin: replaced, later: true, fails: "corrupt"},
	{name: "replaced, no validator, cached", at: cached, server: noValidator, wrong: noValidator, begin: replaced, later: true, fails: "corrupt"},
	{name: "Last-Modified went back", wrong: testserver.Config{LastModified: time.Unix(1e9, 0)}, later: true, fails: "image changed on the server (Last-Modified"},
	{name: "Last-Modified went back, no ETag", server: testserver.Config{NoETag: true}, wrong: testserver.Config{NoETag: true, LastModified: time.Unix(1e9, 0)}, later: true, fails: "image changed on the server (Last-Modified"},

	// Redirects.
	{name: "302 for each request", begin: redirectTo("/moved"), end: gone("moved")},
	{name: "redirect loop", begin: redirectTo("/disk.cloop"), refused: "redirect refused: more than 10 in a row", fails: "redirect refused: more than 10 in a row"},
	{name: "redirect to another port", at: withElsewhere("127.0.0.1:0"), begin: redirectElsewhere, end: nowhereElse, check: checkSecrets},
	{name: "redirect to another host", at: withElsewhere("127.0.0.2:0"), begin: redirectElsewhere, end: nowhereElse, check: checkSecrets},
	{name: "redirect from https to http", at: securely, begin: redirectElsewhere, refused: "redirect refused: from https to http", fails: "redirect refused: from https to http"},
	{name: "redirect that expires with 400", at: signed, begin: expire(400, "/signed-2"), later: true},
	{name: "redirect that expires with 403", at: signed, begin: expire(403, "/signed-2"), later: true},
	{name: "redirect to 400", at: signed, begin: expire(400, "/signed-1"), end: renew, refused: "400 Bad Request", fails: "400 Bad Request"},
	{name: "redirect to 403", at: signed, begin: expire(403, "/signed-1"), end: renew, refused: "403 Forbidden", fails: "403 Forbidden"},

	// Names.
	{name: "certificate expired", at: securely, begin: showCertificate("expired"), end: showCertificate("good"), refused: "certificate has expired", fails: "certificate has expired"},
	{name: "certificate for another name", at: securely, begin: showCertificate("other"), end: showCertificate("good"), refused: "certificate is valid for other.test, not localhost", fails: "certificate is valid for other.test, not localhost"},
	{name: "name not known any more", at: byName, begin: nameFails(noSuchName), end: nameFails(nameKnown), refused: "no such host"},
	{name: "name server fails", at: byName, begin: nameFails(nameServerFailure), end: nameFails(nameKnown), refused: "server misbehaving"},
	{name: "name server is silent", at: byName, begin: nameFails(noAnswer), end: nameFails(nameKnown), refused: "gave up after 2s"},
}

var noValidator = testserver.Config{NoETag: true, NoLastModified: true}

// cached is plainly with an on-disk cache.
func cached(t *testing.T, s *synthetic) *origin {
	o := plainly(t, s)
	_, o.flags = newCache(t, "--trust-size")
	return o
}

func down(_ *testing.T, o *origin) { o.srv.Down() }

func up(t *testing.T, o *origin) {
	if err := o.srv.Up(); err != nil {
		t.Error(err)
	}
}

// downFor has a server that refuses connections accept them again by itself.
func downFor(d time.Duration) func(*testing.T, *origin) {
	return func(t *testing.T, o *origin) {
		down(t, o)
		time.AfterFunc(d, func() { _ = o.srv.Up() }) // up, at the end, tells if it can't
	}
}

// mendIn has a server behave again by itself.
func mendIn(d time.Duration) func(*testing.T, *origin) {
	return func(_ *testing.T, o *origin) { time.AfterFunc(d, o.mend) }
}

package testserver

import "time"

// Config is how a Server behaves. The zero Config is a plain server on a line
// without delay.
//
// Faults with a number of times count down as they happen; a negative number
// never runs out. A request follows the settings of the moment it is received,
// but Rate, Buffer, SlowStart, Truncate and Flip are looked at while it is
// answered.
type Config struct {
	// RTT is the round trip time: the first byte of a response leaves RTT after
	// its request was received. A new connection costs one RTT more, before its
	// first request counts as received. 0 or less: no delay.
	RTT time.Duration

	// Rate is how many bytes of bodies leave in a second, on all connections
	// together. They take turns, first come first served, with pieces of at most
	// 16 KiB or 50 ms. 0 or less: no limit.
	Rate int64

	// Buffer is how many bytes of bodies the queue at the line's narrow end holds.
	// A response puts its next piece in as soon as there is room, and pieces leave
	// in the order in which they came in: a new response has to wait for all that
	// is in the queue. For room its first piece waits for other first pieces only,
	// since the rest of a response follows as its earlier bytes get away. 0 or
	// less: each response has one piece under way, so a new one waits for one
	// piece of each of the others. Without a Rate it does nothing.
	Buffer int64

	// SlowStart gives each connection a congestion window, which is how much may
	// leave within one RTT. It starts at 10 segments of 1460 bytes, doubles each
	// RTT, and starts again once the connection was idle for 1 s. Without an RTT
	// it does nothing.
	SlowStart bool

	// Hang makes requests that are received from now on hang, until the client
	// leaves, Hang is set to HangNone, or the server is closed. They are never
	// continued: in each case their connection is closed.
	Hang Hang

	// HangFrom limits Hang to requests whose range starts at this offset of the
	// file or after it, in bytes. A request without a range starts at 0.
	HangFrom int64

	// FlipTimes is how many of the next responses whose range contains the byte
	// at FlipOffset of the file send it with its lowest bit flipped. 0: none.
	FlipTimes  int
	FlipOffset int64

	// Truncate is how many of the next responses with a body end after half of
	// it, rounded down. Their headers announce all of it, then the connection
	// is closed. 0: none.
	Truncate int

	// Reset is how many of the next requests are answered by a TCP reset of
	// their connection. 0: none.
	Reset int

	// StatusTimes is how many of the next requests are answered with the code
	// Status (200 to 999; 0 means 503), no body, and Retry-After set to
	// RetryAfter unless that is empty. Requests that are reset are not among
	// them. 0: none.
	StatusTimes int
	Status      int
	RetryAfter  string

	// WrongTimes is how many of the next answers that bring a range are wrong in the
	// way of Wrong, decided when they begin. 0: none.
	WrongTimes int
	Wrong      Wrong

	// IgnoreRange answers each request with 200 and the whole file, and does
	// not announce Accept-Ranges.
	IgnoreRange bool

	// ETag is sent in place of the file's own, with its quotes: `"x"` or
	// `W/"x"`. Empty: the file's own.
	ETag string

	// LastModified is sent in place of the file's own. Zero: the file's own.
	LastModified time.Time

	// NoETag and NoLastModified leave out these headers.
	NoETag         bool
	NoLastModified bool
}

// Hang says where a request gets stuck.
type Hang int

const (
	// HangNone lets requests through, and ends those that hang.
	HangNone Hang = iota
	// HangBeforeHeaders never answers.
	HangBeforeHeaders
	// HangMidBody sends the headers and half of the body, rounded down.
	// Responses without a body do not hang.
	HangMidBody
)

// paced reports whether bodies are held back to simulate a line.
func (c *Config) paced() bool {
	return c.Rate > 0 || c.SlowStart && c.RTT > 0
}

// queues reports whether bodies go through a queue with a buffer.
func (c *Config) queues() bool {
	return c.Rate > 0 && c.Buffer > 0
}

// hangs reports whether a request for a range that starts at off hangs.
func (c *Config) hangs(off int64) bool {
	return c.Hang != HangNone && off >= c.HangFrom
}

// take counts a fault down and reports whether it happens.
func take(times *int) bool {
	if *times == 0 {
		return false
	}
	*times-- // a negative number does not get to 0
	return true
}

package httpblock

import "time"

// Through returns opt for servers that are connected to by connect.
func Through(opt Options, connect connectFunc) Options {
	opt.connect = connect
	return opt
}

// SetStall changes how long an attempt may bring nothing, so that tests need
// not wait for a second. Call it before s is used by others.
func SetStall(s *Source, d time.Duration) { s.stall = d }

// MaxRedirects is how many redirects are followed in a row.
const MaxRedirects = maxRedirects

// SetTimeout changes how long s goes on while no data arrives. Call it before
// s is used by others.
func SetTimeout(s *Source, d time.Duration) { s.opt.Timeout = d }

// SampleSize is how much of an answer is compared when a redirect changes.
const SampleSize = sampleSize

// Outstanding is what is expected of all servers.
func Outstanding(s *Source) (bytes, requests int64) {
	for _, v := range s.servers {
		v.speed.mu.Lock()
		bytes, requests = bytes+v.speed.due, requests+v.speed.open
		v.speed.mu.Unlock()
	}
	return bytes, requests
}

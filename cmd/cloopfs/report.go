package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/fusefs"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
)

// mountReport is what a daemon says of its mount. Its JSON names are part of the
// contract with scripts. Sizes are bytes, counts are since the mount.
type mountReport struct {
	Mountpoint string    `json:"mountpoint"`
	Source     string    `json:"source"`
	PID        int       `json:"pid"`
	Since      time.Time `json:"since"`
	DiskSize   int64     `json:"disk_size"`
	// Unmounted says that it is, wherever it was mounted, and its process about to end: status
	// finds no such mount, but who has unmounted it asks.
	Unmounted bool `json:"unmounted,omitempty"`
	// Servers are the image's, empty for a local one.
	Servers []serverReport `json:"servers"`
	Offline bool           `json:"offline"` // no server is asked
	Fetched fetchReport    `json:"fetched"`
	Causes  []causeReport  `json:"causes"`
	// Cache is nil if nothing is kept on disk.
	Cache *cacheReport `json:"cache,omitempty"`
	// Manifest is nil if the image is checked by none.
	Manifest *manifestReport `json:"manifest,omitempty"`
	Memory   memoryReport    `json:"memory"`
	Reads    readReport      `json:"reads"`
	// Writes and Overlay are nil for a read-only disk.
	Writes  *writeReport   `json:"writes,omitempty"`
	Overlay *overlayReport `json:"overlay,omitempty"`
}

// serverReport is a server's health.
type serverReport struct {
	URL string `json:"url"`
	// State is ok, failing (nothing has come since), joining (not seen yet to have the
	// same file), left (for a while) or banned.
	State string `json:"state"`
	// OK says that the last request has brought data.
	OK       bool  `json:"ok"`
	Requests int64 `json:"requests"`
	Failed   int64 `json:"failed"` // of the requests
	Bytes    int64 `json:"bytes"`
	// AnswerTime is how many seconds it takes to answer lately, and Rate how many bytes
	// it then brings in a second; 0 if that is not known.
	AnswerTime  float64    `json:"answer_time"`
	Rate        int64      `json:"rate"`
	LastError   string     `json:"last_error,omitempty"`
	LastErrorAt *time.Time `json:"last_error_at,omitempty"`
}

// fetchReport is what was fetched in all, manifest and hashes included.
type fetchReport struct {
	Requests int64 `json:"requests"`
	Bytes    int64 `json:"bytes"`
}

// causeReport is what was fetched for one reason.
type causeReport struct {
	Cause    string `json:"cause"`
	Requests int64  `json:"requests"`
	Bytes    int64  `json:"bytes"`
	Used     int64  `json:"used"` // of Bytes, those that a reader has had since the mount
}

// cacheReport is what is kept on disk of the file at the source: of an ISO image
// also what does not belong to the image inside.
type cacheReport struct {
	Path     string `json:"path"`
	FileSize int64  `json:"file_size"`
	Bytes    int64  `json:"bytes"`   // of the file, in whole pages
	Removed  bool   `json:"removed"` // from the cache: nothing more is kept, and the rest goes with the mount
	Hits     int64  `json:"hits"`    // reads served from it since the mount, as what follows
	HitBytes int64  `json:"hit_bytes"`
	Stored   int64  `json:"stored"`
	// Mismatches counts what was stored and not there any more, or damaged.
	Mismatches int64 `json:"mismatches"`
}

// memoryReport is the use of the decoded blocks in memory.
type memoryReport struct {
	Blocks int   `json:"blocks"`
	Bytes  int64 `json:"bytes"`
	Hits   int64 `json:"hits"`
	Loads  int64 `json:"loads"`
}

// writeReport is what users of the mount have written.
type writeReport struct {
	Count   int64 `json:"count"`
	Bytes   int64 `json:"bytes"`
	Flushes int64 `json:"flushes"`
	Errors  int64 `json:"errors"` // of writes and flushes; the last error is among those of reads
}

// readReport is what users of the mount have read.
type readReport struct {
	Count       int64      `json:"count"`
	Bytes       int64      `json:"bytes"`
	Waiting     int        `json:"waiting"`
	Errors      int64      `json:"errors"`
	LastError   string     `json:"last_error,omitempty"`
	LastErrorAt *time.Time `json:"last_error_at,omitempty"`
}

// reporter returns the function that answers for a mount, which has ended when ended is closed.
// It only reads counters: no file, which may lie on the disk that is served.
func reporter(o mountOptions, l *line.Line, disk blockio.ReaderAt, written *writes, server *fusefs.Server, ended <-chan struct{}) func() []byte {
	since, source := time.Now(), o.Source.String()
	return func() []byte {
		causes := causesOf(l) // first: what arrives meanwhile must not be more than all
		stats := server.Stats()
		r := mountReport{
			Mountpoint: o.Mountpoint, Source: source, PID: os.Getpid(),
			Since: since, DiskSize: disk.Size(),
			Servers:  serversOf(l),
			Causes:   causes,
			Offline:  l.Entry() != nil && !l.Remote(),
			Cache:    keptOf(l),
			Manifest: manifestOf(l.Proof()),
			Memory:   memoryOf(l.MemoryStats()),
			Reads:    readsOf(stats),
			Overlay:  written.report(),
		}
		select {
		case <-ended:
			r.Unmounted = true
		default:
		}
		if r.Overlay != nil {
			r.Writes = &writeReport{stats.Writes, stats.Written, stats.Flushes, stats.WriteErrors}
		}
		for _, s := range r.Servers {
			r.Fetched.Requests += s.Requests
			r.Fetched.Bytes += s.Bytes
		}
		requests, _, bytes := l.Proof().Fetched()
		r.Fetched.Requests += requests
		r.Fetched.Bytes += bytes
		answer, err := json.Marshal(r)
		if err != nil {
			panic("cloopfs: internal error: " + err.Error()) // nothing in it can fail
		}
		return answer
	}
}

func memoryOf(s cache.MemoryStats) memoryReport {
	return memoryReport{Blocks: s.Blocks, Bytes: s.Bytes, Hits: s.Hits, Loads: s.Loads}
}

func readsOf(s fusefs.Stats) readReport {
	return readReport{
		Count: s.Reads, Bytes: s.Bytes, Waiting: s.Waiting,
		Errors: s.Errors, LastError: cli.OneLine(s.LastError), LastErrorAt: known(s.LastErrorAt),
	}
}

// serversOf says how the image's servers are.
func serversOf(l *line.Line) []serverReport {
	list := []serverReport{} // an empty list in JSON too
	for _, s := range l.Servers() {
		list = append(list, serverReport{
			URL: s.URL, State: string(s.State), OK: s.OK, Requests: s.Requests, Failed: s.Failed, Bytes: s.Bytes,
			AnswerTime: s.Answer.Seconds(), Rate: int64(s.Rate),
			LastError: cli.OneLine(s.LastError), LastErrorAt: known(s.LastErrorAt),
		})
	}
	return list
}

// keptOf says what is kept on disk.
func keptOf(l *line.Line) *cacheReport {
	e := l.Entry()
	if e == nil {
		return nil
	}
	s := e.Stats()
	return &cacheReport{
		Path: e.Path(), FileSize: e.Size(), Bytes: e.Allocated(), Removed: e.Removed(),
		Hits: s.Hits, HitBytes: s.HitBytes, Stored: s.Stored, Mismatches: s.Mismatches,
	}
}

// causesOf divides what was fetched from servers by the reason. Requests that are under
// way have none yet.
func causesOf(l *line.Line) []causeReport {
	stats := l.FetchStats()
	again := stats.Refetched
	retry := causeReport{"retry", again.Requests, again.Bytes, again.Used}
	for _, s := range serversOf(l) {
		retry.Requests += s.Failed
	}
	list := []causeReport{} // an empty list in JSON too
	for class, s := range stats.Class {
		if s.Requests > 0 {
			list = append(list, causeReport{blockio.Class(class).String(), s.Requests, s.Bytes, s.Used})
		}
	}
	if requests, failed, bytes := l.Proof().Fetched(); requests > 0 {
		retry.Requests += failed
		list = append(list, causeReport{"manifest", requests - failed, bytes, bytes})
	}
	if !l.Remote() {
		return list
	}
	index := causeReport{Cause: "index"}
	index.Requests, index.Bytes = l.IndexFetched()
	index.Used = index.Bytes
	if retry.Requests > 0 {
		list = append(list, retry)
	}
	return append([]causeReport{index}, list...)
}

// manifestReport is what an image is checked by. Its JSON names are part of the contract
// with scripts.
type manifestReport struct {
	Name    string `json:"name"`
	Version int64  `json:"version"`
	Date    string `json:"date"`
	Root    string `json:"root"`
	Key     string `json:"key,omitempty"` // the number of the key that has signed it; none if no signature was asked for
	Proven  int64  `json:"proven"`        // stored blocks that were compared and right, so far
	Refused int64  `json:"refused"`       // those that were not, and were thrown away
}

// manifestOf says by what an image is checked; nil if by nothing.
func manifestOf(p *line.Proof) *manifestReport {
	if p == nil {
		return nil
	}
	m, stats := p.Manifest(), p.Stats()
	return &manifestReport{
		Name: m.Name, Version: m.Version, Date: m.Date.Format(time.DateOnly),
		Root: line.RootPrefix + m.Root.String(), Key: p.Key(), Proven: stats.Proven, Refused: stats.Refused,
	}
}

// String is what an image is checked by, for people.
func (r *manifestReport) String() string {
	signed := "not signed"
	if r.Key != "" {
		signed = "signed by key " + r.Key
	}
	return fmt.Sprintf("%s, version %d of %s, %s", r.Name, r.Version, r.Date, signed)
}

// known is t, nil if there has been no such time.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

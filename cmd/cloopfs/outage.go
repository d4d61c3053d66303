package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// outageTime is how often it is looked how the servers are. One that fails at two looks in a
// row has an outage: a lost connection is none.
const outageTime = 5 * time.Second

// outage is how a server was at the last looks.
type outage struct {
	since time.Time // when it was first found failing; zero: it is well
	told  bool
}

// watchServers logs which servers fail, and when they answer again, until ctx ends. Where
// readers wait for ever no failed read tells of it.
func watchServers(ctx context.Context, servers func() []serverReport, log *slog.Logger) {
	look := time.NewTicker(outageTime)
	defer look.Stop()
	known := make(map[int]outage) // by place in the list: their URLs change with redirects
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		for n, s := range servers() {
			if s.State != string(blockio.ServerJoining) && s.State != string(blockio.ServerBanned) { // these are not asked
				known[n] = known[n].next(s, log)
			}
		}
	}
}

// next is o after another look.
func (o outage) next(s serverReport, log *slog.Logger) outage {
	switch {
	case s.OK && o.told:
		log.Info("the server answers again", "url", s.URL, "after", time.Since(o.since).Round(time.Second))
		return outage{}
	case s.OK:
		return outage{}
	case o.since.IsZero():
		return outage{since: time.Now()}
	case !o.told:
		log.Warn("the server fails", "url", s.URL, "error", s.LastError)
	}
	return outage{since: o.since, told: true}
}

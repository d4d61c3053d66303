package main

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestWatchServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ok [2]atomic.Bool
		servers := func() []serverReport {
			return []serverReport{
				{URL: "http://one/", OK: ok[0].Load(), LastError: "connection refused"},
				{URL: "http://two/", OK: ok[1].Load(), LastError: "no data arrived"},
				{URL: "http://three/", State: "joining", LastError: "connection refused"},
				{URL: "http://four/", State: "banned", LastError: "it has sent wrong bytes"},
			}
		}
		var text bytes.Buffer
		log := slog.New(slog.NewTextHandler(&text, nil))
		ctx, cancel := context.WithCancel(t.Context())
		go watchServers(ctx, servers, log)
		step := func(one, two bool, want ...string) {
			t.Helper()
			ok[0].Store(one)
			ok[1].Store(two)
			time.Sleep(outageTime)
			synctest.Wait()
			got := strings.TrimSuffix(text.String(), "\n")
			text.Reset()
			for _, w := range want {
				if !strings.Contains(got, w) {
					t.Errorf("logged %q, want %q", got, w)
				}
			}
			if len(want) == 0 && got != "" {
				t.Errorf("logged %q, want nothing", got)
			}
		}
		time.Sleep(time.Second)
		step(true, true)
		step(true, false)
		step(true, true)
		step(true, false)
		step(true, false, `level=WARN msg="the server fails" url=http://two/ error="no data arrived"`)
		step(false, false)
		step(false, false, "url=http://one/")
		for range 100 {
			step(false, false)
		}
		step(true, false, `level=INFO msg="the server answers again" url=http://one/ after=8m`)
		step(true, true, "url=http://two/")
		step(true, true)
		cancel()
	})
}

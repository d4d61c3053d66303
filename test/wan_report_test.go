//go:build integration

package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// outcome is what came of an errand on a peer, and what it took.
type outcome struct {
	reading
	took  time.Duration // from the start of the peer
	stats testserver.Stats
}

// wanColumns are what is reported of each peer; columns about latencies only of errands
// that have any.
var wanColumns = []struct {
	unit    string
	latency bool
	of      func(o *outcome) float64
}{
	{"s", false, func(o *outcome) float64 { return o.took.Seconds() }},
	{"requests", false, func(o *outcome) float64 { return float64(o.stats.Requests) }},
	{"MB", false, func(o *outcome) float64 { return float64(o.stats.Bytes) / 1e6 }},
	{"unique-MB", false, func(o *outcome) float64 { return float64(o.stats.Unique()) / 1e6 }},
	{"mean-ms", true, func(o *outcome) float64 { return mean(o.Latencies).Seconds() * 1e3 }},
	{"p50-ms", true, func(o *outcome) float64 { return quantile(o.Latencies, 0.5).Seconds() * 1e3 }},
	{"p99-ms", true, func(o *outcome) float64 { return quantile(o.Latencies, 0.99).Seconds() * 1e3 }},
}

// report reports medians of the rounds as metrics, PEER-UNIT and PEER/OTHER for the ratio
// to another's time, and logs them as a table. Rounds where a peer has failed are nil.
func report(b *testing.B, list []peer, rounds [][]*outcome) {
	var heading, rows []string
	for i, p := range list {
		name := strings.ReplaceAll(p.name, " ", "_")
		heading = []string{"peer"}
		row := []string{p.name}
		add := func(title, unit string, values []float64) {
			heading = append(heading, title)
			if len(values) == 0 {
				row = append(row, "")
				return
			}
			b.ReportMetric(median(values), unit)
			row = append(row, fmt.Sprintf("%.4g", median(values)))
		}
		for _, c := range wanColumns {
			var values []float64
			for _, o := range rounds[i] {
				if o != nil && (!c.latency || len(o.Latencies) > 0) {
					values = append(values, c.of(o))
				}
			}
			add(c.unit, name+"-"+c.unit, values)
		}
		for _, base := range []string{"download", "curl", "qemu"} {
			k := slices.IndexFunc(list, func(p peer) bool { return p.name == base })
			if k < 0 {
				continue
			}
			if k == i {
				add("of "+base, "", nil)
				continue
			}
			var values []float64
			for r, o := range rounds[i] {
				if other := rounds[k][r]; o != nil && other != nil {
					values = append(values, o.took.Seconds()/other.took.Seconds())
				}
			}
			add("of "+base, name+"/"+base, values)
		}
		rows = append(rows, "| "+strings.Join(row, " | ")+" |")
	}
	b.ReportMetric(0, "ns/op")
	b.Logf("medians of %d rounds\n| %s |\n%s%s", len(rounds[0]),
		strings.Join(heading, " | "), "|"+strings.Repeat("---|", len(heading))+"\n", strings.Join(rows, "\n"))
}

func mean(list []time.Duration) time.Duration {
	sum := time.Duration(0)
	for _, d := range list {
		sum += d
	}
	return sum / time.Duration(len(list))
}

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

// wanColumns are what is reported of each peer, if has says that it has it.
var wanColumns = []struct {
	unit string
	has  func(o *outcome) bool
	of   func(o *outcome) float64
}{
	{"s", always, func(o *outcome) float64 { return o.took.Seconds() }},
	{"requests", always, func(o *outcome) float64 { return float64(o.stats.Requests) }},
	{"MB", always, func(o *outcome) float64 { return float64(o.stats.Bytes) / 1e6 }},
	{"unique-MB", always, func(o *outcome) float64 { return float64(o.stats.Unique()) / 1e6 }},
	{"mean-ms", hasLatencies, func(o *outcome) float64 { return mean(o.Latencies).Seconds() * 1e3 }},
	{"p50-ms", hasLatencies, func(o *outcome) float64 { return quantile(o.Latencies, 0.5).Seconds() * 1e3 }},
	{"p99-ms", hasLatencies, func(o *outcome) float64 { return quantile(o.Latencies, 0.99).Seconds() * 1e3 }},
	{"boot-s", hasBooted, func(o *outcome) float64 { return o.Booted.Seconds() }},
}

func always(*outcome) bool         { return true }
func hasLatencies(o *outcome) bool { return len(o.Latencies) > 0 }
func hasBooted(o *outcome) bool    { return o.Booted > 0 }

// column is something to report of each peer: medians of the rounds.
type column struct {
	title  string
	metric string // behind the peer's name
	values [][]float64
}

// report reports medians of the rounds as metrics, PEER-UNIT and PEER/OTHER for the ratio
// to another's time, and logs them as a table. Rounds where a peer has failed are nil.
func report(b *testing.B, list []peer, rounds [][]*outcome) {
	columns := slices.DeleteFunc(wanTable(list, rounds), func(c column) bool {
		return !slices.ContainsFunc(c.values, func(v []float64) bool { return len(v) > 0 })
	})
	table := new(strings.Builder)
	table.WriteString("| peer |")
	for _, c := range columns {
		fmt.Fprintf(table, " %s |", c.title)
	}
	table.WriteString("\n|---|" + strings.Repeat("---|", len(columns)))
	for i, p := range list {
		fmt.Fprintf(table, "\n| %s |", p.name)
		for _, c := range columns {
			cell := ""
			if len(c.values[i]) > 0 {
				m := median(c.values[i])
				b.ReportMetric(m, strings.ReplaceAll(p.name, " ", "_")+c.metric)
				cell = fmt.Sprintf("%.4g", m)
			}
			fmt.Fprintf(table, " %s |", cell)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.Logf("medians of %d rounds\n%s", len(rounds[0]), table)
}

// wanTable is all that there might be to report.
func wanTable(list []peer, rounds [][]*outcome) (columns []column) {
	of := func(name string) []*outcome {
		if k := slices.IndexFunc(list, func(p peer) bool { return p.name == name }); k >= 0 {
			return rounds[k]
		}
		return nil
	}
	add := func(title, metric string, values func(ours []*outcome) []float64) {
		c := column{title: title, metric: metric}
		for i := range list {
			c.values = append(c.values, values(rounds[i]))
		}
		columns = append(columns, c)
	}
	for _, c := range wanColumns {
		add(c.unit, "-"+c.unit, func(ours []*outcome) (values []float64) {
			for _, o := range ours {
				if o != nil && c.has(o) {
					values = append(values, c.of(o))
				}
			}
			return values
		})
	}
	for _, other := range []string{"download", curl.name, "qemu"} {
		if theirs := of(other); theirs != nil {
			add("of "+other, "/"+other, func(ours []*outcome) []float64 {
				return ratios(ours, theirs, func(o *outcome, _ int) float64 { return o.took.Seconds() })
			})
		}
	}
	if ground, theirs := of(local.name), of("qemu"); ground != nil && theirs != nil {
		add("adds, of qemu", "-adds/qemu", func(ours []*outcome) []float64 {
			return ratios(ours, theirs, func(o *outcome, round int) float64 { return (o.Booted - ground[round].Booted).Seconds() })
		})
	}
	return columns
}

// ratios compares the rounds where neither of two peers has failed.
func ratios(ours, theirs []*outcome, of func(o *outcome, round int) float64) (values []float64) {
	for r, o := range ours {
		if o != nil && theirs[r] != nil && o != theirs[r] {
			values = append(values, of(o, r)/of(theirs[r], r))
		}
	}
	return values
}

func mean(list []time.Duration) time.Duration {
	sum := time.Duration(0)
	for _, d := range list {
		sum += d
	}
	return sum / time.Duration(len(list))
}

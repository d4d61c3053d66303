//go:build integration

package test

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// wanPeersEnv limits BenchmarkWAN to these peers: names from the list peers, or
// "cloopfs" with flags, separated by commas.
const wanPeersEnv = "CLOOPFS_WAN_PEERS"

// workload is something to do with a disk that has just been mounted.
type workload struct {
	name  string
	lines []string // on which to do it; nil for all
	work
	traced work // what a trace is recorded of; nil for the work itself
	// peers are those that take part, of those that were chosen.
	peers func(chosen []peer) []peer
}

// work is done on the disk or the files of a view, and given up when it is stuck: when
// progress returns the same for a minute, or, for what may do without, after patience.
type work interface {
	do(b *testing.B, s *session, v view, progress func() int64) (reading, error)
}

// BenchmarkWAN compares cloopfs with its peers over lines of some length, with a
// buffer of one bandwidth-delay product: in each round all of them, in an order that
// changes, each from a cold start. The time is that from the start of the peer's first
// process to the last byte; ratios are those of times, medians of the rounds' ratios. Every byte read is
// compared with the disk itself.
func BenchmarkWAN(b *testing.B) {
	f := need(b, debian64K)
	squashfs := needSquashfs(b, f)
	used := usedPages(b, f.raw)
	names := wanFiles(b, f)
	shuffled := slices.Clone(names)
	rand.New(rand.NewPCG(1, 0)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	half := len(used) / 2
	workloads := []workload{
		{name: "Files", work: errand{Names: names, Readers: 1}, peers: filePeers},
		{name: "FilesShuffled", work: errand{Names: shuffled, Readers: 1}, peers: filePeers},
		{name: "FilesParallel", work: errand{Names: names, Readers: 8}, peers: filePeers},
		{name: "Sequential", work: errand{Readers: 1}, peers: besideCurl},
		{name: "Random", work: errand{Offsets: choices(1, used, 500), Readers: 1}, peers: withDisks},
		{name: "Random16", work: errand{Offsets: choices(2, used, 1000), Readers: 16}, peers: withDisks},
		{
			name: "Latency", work: errand{Offsets: lastApart(used[half:], 50), Readers: 1},
			traced: errand{Offsets: used[:half], Readers: 1}, peers: beneathOthers,
		},
		{name: "Boot", lines: []string{"wan"}, work: systemBoot{}, peers: besideLocal},
	}
	chosen := chosenPeers(b)
	for _, line := range []struct {
		name string
		rtt  time.Duration
		mbit int64
	}{
		{"metro", 10 * time.Millisecond, 200},
		{"wan", 50 * time.Millisecond, 50},
		{"far", 150 * time.Millisecond, 20},
	} {
		for _, work := range workloads {
			if work.lines != nil && !slices.Contains(work.lines, line.name) {
				continue
			}
			b.Run(line.name+"/"+work.name, func(b *testing.B) {
				srv, url := serve(b, nil)
				srv.Set(func(c *testserver.Config) {
					c.RTT, c.Rate = line.rtt, line.mbit*1e6/8
					c.Buffer = int64(c.RTT.Seconds() * float64(c.Rate))
				})
				at := site{cloop: url, local: f.raw}
				for _, image := range []struct {
					url  *string
					path string
				}{{&at.cloop, f.image}, {&at.raw, f.raw}, {&at.squashfs, squashfs}} {
					name := filepath.Base(image.path)
					if err := srv.AddFile(name, image.path); err != nil {
						b.Fatal(err)
					}
					*image.url = srv.URL(name)
				}
				list := work.peers(chosen)
				if slices.ContainsFunc(list, replays) {
					at.trace = recordTrace(b, cmp.Or(work.traced, work.work), f)
				}
				benchPeers(b, work, list, srv, at, f)
			})
		}
	}
}

// replays says whether a peer replays a trace.
func replays(p peer) bool { return slices.Contains(strings.Fields(p.name), "--profile") }

// filePeers, besideCurl, withDisks, beneathOthers and besideLocal say who takes part in a
// workload: all, but who speculates not; those that show a disk, and curl; those that show
// a disk, but who replays a trace; cloopfs while the line is idle, while it fetches the
// rest, and while it replays a trace; cloopfs and QEMU, the disk itself, and who has a part
// of the trace.
func filePeers(chosen []peer) []peer {
	return slices.DeleteFunc(slices.Clone(chosen), func(p peer) bool { return p.name == demandOnly })
}

func besideCurl(chosen []peer) []peer {
	list := slices.DeleteFunc(filePeers(chosen), func(p peer) bool { return p.tree })
	return append(list, curl)
}

func withDisks(chosen []peer) []peer {
	return slices.DeleteFunc(slices.Clone(chosen), func(p peer) bool { return p.tree || replays(p) })
}

func beneathOthers([]peer) []peer {
	var list []peer
	for _, flags := range []string{"", " --background-fill", " --profile " + traceFile} {
		p, _ := peerNamed(demandOnly + flags)
		list = append(list, p)
	}
	return list
}

func besideLocal(chosen []peer) []peer {
	part, _ := peerNamed("cloopfs --profile " + partFile)
	list := []peer{local}
	for _, p := range filePeers(chosen) {
		if strings.HasPrefix(p.name, "cloopfs") || p.name == "qemu" {
			list = append(list, p)
		}
		if p.name == replaying {
			list = append(list, part)
		}
	}
	return list
}

// chosenPeers are those that take part if they can.
func chosenPeers(b *testing.B) []peer {
	b.Helper()
	env := os.Getenv(wanPeersEnv)
	if env == "" {
		return peers
	}
	var chosen []peer
	for name := range strings.SplitSeq(env, ",") {
		p, ok := peerNamed(name)
		if !ok {
			b.Fatalf("%s: no peer is called %q", wanPeersEnv, name)
		}
		chosen = append(chosen, p)
	}
	return chosen
}

// benchPeers does the rounds of one workload.
func benchPeers(b *testing.B, work workload, list []peer, srv *testserver.Server, at site, f fixture) {
	want := referenceSum(b, work, f)
	rounds := make([][]*outcome, len(list))
	round := 0
	for b.Loop() {
		for i := range list {
			k := (round + i) % len(list)
			o, err := visit(b, list[k], work, srv, at)
			if err == nil && list[k].name != curl.name && o.Sum != want {
				err = errors.New("has read wrong bytes")
			}
			if err != nil {
				o = nil
				b.Logf("%s has failed: %v", list[k].name, err)
				if strings.HasPrefix(list[k].name, "cloopfs") {
					b.Fail()
				}
			}
			rounds[k] = append(rounds[k], o)
		}
		round++
	}
	if len(list) > 0 {
		report(b, list, rounds)
	}
}

// visit starts a peer, has the work done, and ends the peer.
func visit(b *testing.B, p peer, what work, srv *testserver.Server, at site) (*outcome, error) {
	s := newSession(b)
	defer s.end()
	srv.Reset()
	begin := time.Now()
	v, err := p.start(s, at)
	var got reading
	if err == nil && p.name != curl.name {
		got, err = what.do(b, s, v, func() int64 { return srv.Stats().Bytes })
	}
	return &outcome{got, time.Since(begin), srv.Stats()}, err
}

// recordTrace is the trace of a work.
func recordTrace(b *testing.B, what work, f fixture) (file string) {
	b.Helper()
	s := newSession(b)
	defer s.end()
	file = filepath.Join(b.TempDir(), "trace")
	v, err := startCloopfs("--record", file)(s, site{cloop: f.image})
	if err == nil {
		_, err = what.do(b, s, v, func() int64 { return 0 })
	}
	if err != nil {
		b.Fatal(err)
	}
	return file
}

// referenceSum is what a work has to come to.
func referenceSum(b *testing.B, what work, f fixture) uint32 {
	b.Helper()
	s := newSession(b)
	defer s.end()
	got, err := what.do(b, s, view{disk: f.raw}, func() int64 { return 0 })
	if err != nil {
		b.Fatal(err)
	}
	return got.Sum
}

// needSquashfs makes a squashfs of the same files, once.
func needSquashfs(b *testing.B, f fixture) string {
	b.Helper()
	dir := filepath.Dir(f.raw)
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		b.Fatal(err)
	}
	defer unlock()
	path := filepath.Join(dir, "debian.squashfs")
	if older(path, f.raw) {
		_ = os.Remove(path) // made below
	}
	err = chain(step{path, func(out string) error {
		return command("mksquashfs", filepath.Join(dir, "debian-rootfs"), out, "-b", "64K", "-comp", "gzip", "-quiet", "-no-progress")
	}})
	if err != nil {
		b.Fatal(err)
	}
	return path
}

//go:build integration

package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// partitioned is a disk with a table made by sfdisk, and a file system made by
// mke2fs in each of its partitions.
type partitioned struct {
	raw   string // path of the disk
	image string // path of the disk as cloop
	parts []part
}

// part is a partition, as sfdisk says. The file "name" in it holds its number.
type part struct{ number, off, size int }

// file is the partition's file in a mount.
func (p part) file(dir string) string { return fmt.Sprintf("%s.p%d", diskOf(dir), p.number) }

// Each disk is made once. Both have a gap in their numbers.
var (
	gptDisk = sync.OnceValues(func() (partitioned, error) {
		return makePartitioned("gpt", `label: gpt
1: start=2048, size=8192
3: start=10240, size=16384
4: start=26624, size=4096
`)
	})
	mbrDisk = sync.OnceValues(func() (partitioned, error) {
		return makePartitioned("mbr", `label: dos
1: start=2048, size=8192, type=83
2: start=10240, size=30720, type=5
3: start=40960, size=4096, type=83
5: start=12288, size=12288, type=83
6: start=26624, size=8192, type=83
7: start=36864, size=4096, type=83
`)
	})
	tables = map[string]func() (partitioned, error){"GPT": gptDisk, "MBR": mbrDisk}
)

// makePartitioned makes a disk of 24 MiB with the table that a script for sfdisk
// describes.
func makePartitioned(name, script string) (d partitioned, err error) {
	d = partitioned{raw: filepath.Join(scratch, name+".img"), image: filepath.Join(scratch, name+".cloop")}
	if err := command("truncate", "--size=24M", d.raw); err != nil {
		return d, err
	}
	sfdisk := exec.Command("sfdisk", "--quiet", d.raw)
	sfdisk.Stdin = strings.NewReader(script)
	if out, err := sfdisk.CombinedOutput(); err != nil {
		return d, fmt.Errorf("sfdisk: %w\n%s", err, out)
	}
	if d.parts, err = readTable(d.raw); err != nil {
		return d, err
	}
	if want := strings.Count(script, "start="); len(d.parts) < want-1 || len(d.parts) > want {
		return d, fmt.Errorf("sfdisk has made the partitions %v", d.parts)
	}
	for i, p := range d.parts {
		if err := d.fill(p, []string{"ext4", "ext2", "ext3"}[i%3]); err != nil {
			return d, err
		}
	}
	return d, command("create_compressed_fs", "-q", "-B", "64K", "-L", "1", d.raw, d.image)
}

// readTable returns what sfdisk says of a disk's partitions, without the
// extended one.
func readTable(disk string) ([]part, error) {
	out, err := exec.Command("sfdisk", "--json", disk).Output()
	if err != nil {
		return nil, fmt.Errorf("sfdisk --json: %w", err)
	}
	var table struct {
		PartitionTable struct {
			Partitions []struct {
				Node, Type  string
				Start, Size int
			}
		}
	}
	if err := json.Unmarshal(out, &table); err != nil {
		return nil, err
	}
	var parts []part
	for _, p := range table.PartitionTable.Partitions {
		number, err := strconv.Atoi(strings.TrimPrefix(p.Node, disk))
		if err != nil {
			return nil, err
		}
		if p.Type != "5" {
			parts = append(parts, part{number, p.Start * 512, p.Size * 512})
		}
	}
	return parts, nil
}

// fill makes a file system in a partition.
func (d partitioned) fill(p part, fsType string) error {
	root := fmt.Sprintf("%s.root%d", d.raw, p.number)
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "name"), []byte(strconv.Itoa(p.number)), 0o644); err != nil {
		return err
	}
	return command("mke2fs", "-q", "-t", fsType, "-d", root, "-E", "offset="+strconv.Itoa(p.off), d.raw, strconv.Itoa(p.size/kib)+"K")
}

// needDisk makes a disk with partitions, or the test fails.
func needDisk(t *testing.T, build func() (partitioned, error)) partitioned {
	t.Helper()
	d, err := build()
	if err != nil {
		t.Fatalf("make the test disk: %v", err)
	}
	return d
}

// list is what ls prints of a mount that shows the partitions.
func (d partitioned) list() string {
	names := []string{"disk.img\n"}
	for _, p := range d.parts {
		names = append(names, filepath.Base(p.file(""))+"\n")
	}
	return strings.Join(names, "")
}

// checkPart compares a file with a partition, byte by byte and as a file system.
func (d partitioned) checkPart(t *testing.T, p part, file string) {
	t.Helper()
	if got := must(t, "stat", "--format=%s %b", file); got != fmt.Sprintf("%d %d\n", p.size, p.size/512) {
		t.Errorf("%s: size and blocks are %q, want %d", file, got, p.size)
	}
	must(t, "sh", "-c", `tail -c "+$(($3 + 1))" "$1" | head -c "$4" | cmp - "$2"`,
		"sh", d.raw, file, strconv.Itoa(p.off), strconv.Itoa(p.size))
	tree := mountLoop(t, file)
	if got := must(t, "cat", filepath.Join(tree, "name")); got != strconv.Itoa(p.number) {
		t.Errorf("%s: the file in it says %q, want %d", file, got, p.number)
	}
	must(t, "umount", tree)
}

// Each partition of a disk is a file, whatever the table and the image are.
func TestPartitions(t *testing.T) {
	for name, build := range tables {
		for _, format := range []string{"cloop", "raw"} {
			t.Run(name+" "+format, func(t *testing.T) {
				d := needDisk(t, build)
				file := d.image
				if format == "raw" {
					file = d.raw
				}
				dir := mount(t, serveFile(t, file))
				// One that nobody has listed yet is there, too; what is none is not.
				p := d.parts[1]
				if got := must(t, "stat", "--format=%F %h %a %u %i", p.file(dir)); got != fmt.Sprintf("regular file 1 400 0 %d\n", 2+p.number) {
					t.Errorf("%s: got %q", p.file(dir), got)
				}
				for _, number := range []int{0, 2, 100} {
					if r := run(t, "stat", part{number: number}.file(dir)); !strings.Contains(r.stderr, "No such file") {
						t.Errorf("partition %d: %v, want no such file", number, r)
					}
				}
				if got := must(t, "ls", "-A", dir); got != d.list() {
					t.Errorf("ls prints %q, want %q", got, d.list())
				}
				for _, p := range d.parts {
					d.checkPart(t, p, p.file(dir))
				}
				must(t, "cmp", diskOf(dir), d.raw)
				umount(t, dir)
			})
		}
	}
}

// The table is not read before somebody asks for it, and then once: a mount
// whose disk.img alone is used costs what it would cost without partitions.
func TestPartitionTableIsReadLate(t *testing.T) {
	for name, build := range tables {
		t.Run(name, func(t *testing.T) {
			d := needDisk(t, build)
			srv, url := serve(t, nil)
			if err := srv.AddFile("disk.cloop", d.image); err != nil {
				t.Fatal(err)
			}
			dir := mount(t, url)
			// A page from the middle, stat and df, and what is no file at all.
			args := directRead(diskOf(dir), 12*mib, pageSize)
			must(t, args[0], args[1:]...)
			must(t, "stat", dir, diskOf(dir))
			must(t, "df", dir)
			run(t, "stat", filepath.Join(dir, "autorun.inf"))
			st := srv.Stats()
			if len(st.Ranges) != 2 || st.Ranges[0].Off != 0 || st.Ranges[0].Len != 8*kib || st.Ranges[1].Off == 0 {
				t.Errorf("requests are %v, want one for header and index, one for a block", st.Ranges)
			}

			srv.Reset()
			must(t, "ls", dir)
			if st := srv.Stats(); st.Requests == 0 {
				t.Error("ls cost no request: this test has found out nothing")
			}
			srv.Reset()
			must(t, "ls", "-l", dir)
			must(t, "stat", d.parts[0].file(dir))
			run(t, "stat", part{number: 100}.file(dir))
			if st := srv.Stats(); st.Requests > 0 {
				t.Errorf("the table was read again: %v", st.Ranges)
			}
			umount(t, dir)
		})
	}
}

// While a server hangs nobody waits longer than the timeout for the table, and
// who does not need it does not wait at all.
func TestPartitionsOfHungServer(t *testing.T) {
	const (
		timeout = 2 * time.Second
		slack   = time.Second
	)
	for _, h := range hangs {
		t.Run(h.name, func(t *testing.T) {
			d := needDisk(t, gptDisk)
			srv, url := serve(t, nil)
			if err := srv.AddFile("disk.cloop", d.image); err != nil {
				t.Fatal(err)
			}
			dir := mount(t, url, "--timeout", "2s")
			hang(t, srv, h.kind)

			begin := time.Now()
			ls := start(t, "ls", dir)
			var stats []*process
			for _, p := range d.parts {
				stats = append(stats, start(t, "stat", p.file(dir)))
			}
			waitFor(t, "a request", func() bool { return srv.Stats().Requests > 1 })
			quick(t, "stat", diskOf(dir))
			quick(t, "df", dir)
			for _, p := range stats {
				if r := p.result(t); r.code == 0 || !strings.Contains(r.stderr, "Input/output error") {
					t.Errorf("%s: %v, want an I/O error", p.name, r)
				}
			}
			if r := ls.result(t); r.code != 0 || r.stdout != "disk.img\n" {
				t.Errorf("ls: %v, want disk.img alone", r)
			}
			for _, p := range append(stats, ls) {
				if d := p.ended.Sub(begin); d < timeout/2 || d > timeout+slack {
					t.Errorf("%s took %v, want about %v and at most %v", p.name, d, timeout, timeout+slack)
				}
			}

			unhang(srv)
			waitFor(t, "the partitions are listed", func() bool { return must(t, "ls", dir) == d.list() })
			d.checkPart(t, d.parts[0], d.parts[0].file(dir))
			umount(t, dir)
		})
	}
}

// --partition presents one partition alone.
func TestOnePartition(t *testing.T) {
	for name, build := range tables {
		t.Run(name, func(t *testing.T) {
			d := needDisk(t, build)
			url := serveFile(t, d.image)
			p := d.parts[len(d.parts)-1]
			dir := mount(t, url, "--partition", strconv.Itoa(p.number))
			if got := must(t, "ls", "-A", dir); got != "disk.img\n" {
				t.Errorf("ls prints %q, want disk.img alone", got)
			}
			if r := run(t, "stat", p.file(dir)); !strings.Contains(r.stderr, "No such file") {
				t.Errorf("its own file: %v, want no such file", r)
			}
			d.checkPart(t, p, diskOf(dir))
			umount(t, dir)
		})
	}
}

// A partition that is not there is an error that says which are.
func TestNoSuchPartition(t *testing.T) {
	d := needDisk(t, gptDisk)
	plain := need(t, small)
	tests := []struct {
		name, image, number string
		hint                string
	}{
		{"gap", d.image, "2", "1, 3, 4"},
		{"raw", d.raw, "5", "1, 3, 4"},
		{"extended", needDisk(t, mbrDisk).image, "2", "1, 3, 5, 6, 7"},
		{"no table", plain.image, "1", "no partition table"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := makeDir(t)
			for _, foreground := range [][]string{nil, {"--foreground", "--quiet"}} {
				args := slices.Concat([]string{"mount", "--partition", test.number}, foreground, []string{serveFile(t, test.image), dir})
				r := run(t, cloopfs, args...)
				checkFailure(t, r, 3, "no partition "+test.number)
				if !strings.Contains(r.stderr, "cloopfs: hint: ") || !strings.Contains(r.stderr, test.hint) {
					t.Errorf("stderr is %q, want a hint with %q", r.stderr, test.hint)
				}
				if mounted(dir) {
					t.Errorf("%s is mounted", dir)
				}
			}
		})
	}
}

// With a hung server the table that --partition needs is not waited for longer
// than the timeout.
func TestOnePartitionOfHungServer(t *testing.T) {
	d := needDisk(t, gptDisk)
	srv, url := serve(t, nil)
	if err := srv.AddFile("disk.cloop", d.image); err != nil {
		t.Fatal(err)
	}
	// Header and index come, the blocks do not.
	srv.Set(func(c *testserver.Config) { c.Hang, c.HangFrom = testserver.HangBeforeHeaders, 1 })
	t.Cleanup(func() { unhang(srv) })
	dir := makeDir(t)
	var r result
	if took := elapsed(func() { r = run(t, cloopfs, "mount", "--timeout=1s", "--partition=1", url, dir) }); took > 3*time.Second {
		t.Errorf("mount took %v", took)
	}
	checkFailure(t, r, 4, "gave up after 1s")
	checkNoMount(t, dir)
}

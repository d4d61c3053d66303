//go:build integration

package test

import (
	"bufio"
	"bytes"
	"io"
	"math/bits"
	"os"
	"slices"
	"strings"
	"testing"
)

// wanFiles are 2,000 regular files of the disk, in path order.
func wanFiles(t testing.TB, f fixture) []string {
	t.Helper()
	raw, err := os.ReadFile(f.files)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(raw)) {
		sum, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ./")
		if !ok {
			t.Fatalf("%s: can't read the line %q", f.files, line)
		}
		if sum[0] == '\\' {
			name = strings.NewReplacer(`\\`, `\`, `\n`, "\n").Replace(name)
		}
		all = append(all, name)
	}
	slices.Sort(all)
	chosen := newTwister(3).sample(all, 2000)
	slices.Sort(chosen)
	return chosen
}

// usedPages are the offsets of the pages of a disk that are not zeros.
func usedPages(t testing.TB, disk string) []int64 {
	t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, mib)
	page, zeros := make([]byte, pageSize), make([]byte, pageSize)
	var used []int64
	for off := int64(0); ; off += pageSize {
		if _, err := io.ReadFull(r, page); err == io.EOF {
			return used
		} else if err != nil {
			t.Fatalf("read %s: %v", disk, err)
		}
		if !bytes.Equal(page, zeros) {
			used = append(used, off)
		}
	}
}

// choices are n of list, some perhaps more than once.
func choices(seed uint32, list []int64, n int) []int64 {
	r := newTwister(seed)
	chosen := make([]int64, n)
	for i := range chosen {
		chosen[i] = list[r.below(len(list))]
	}
	return chosen
}

// lastApart are n of list at equal distances, the last first.
func lastApart(list []int64, n int) []int64 {
	chosen := make([]int64, n)
	for i := range chosen {
		chosen[i] = list[len(list)-1-i*len(list)/n]
	}
	return chosen
}

// twister is the generator of Python's module random, so that scripts can make the
// same lists: MT19937, seeded with one number.
type twister struct {
	state [624]uint32
	next  int
}

func newTwister(seed uint32) *twister {
	const n = len(twister{}.state)
	r := &twister{next: n}
	s := &r.state
	s[0] = 19650218
	for i := 1; i < n; i++ {
		s[i] = 1812433253*(s[i-1]^s[i-1]>>30) + uint32(i)
	}
	i := 1
	step := func(factor, add uint32) {
		s[i] = (s[i] ^ (s[i-1]^s[i-1]>>30)*factor) + add
		if i++; i == n {
			s[0], i = s[n-1], 1
		}
	}
	for range n {
		step(1664525, seed)
	}
	for range n - 1 {
		step(1566083941, -uint32(i))
	}
	s[0] = 1 << 31
	return r
}

func (r *twister) uint32() uint32 {
	const n, m = len(twister{}.state), 397
	if r.next == n {
		for i := range n {
			y := r.state[i]&(1<<31) | r.state[(i+1)%n]&(1<<31-1)
			r.state[i] = r.state[(i+m)%n] ^ y>>1 ^ y&1*0x9908b0df
		}
		r.next = 0
	}
	y := r.state[r.next]
	r.next++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return y ^ y>>18
}

// below is random.randrange(n).
func (r *twister) below(n int) int {
	for {
		if k := int(r.uint32() >> (32 - bits.Len(uint(n)))); k < n {
			return k
		}
	}
}

// sample is random.sample(list, n), of a list not much longer than n.
func (r *twister) sample(list []string, n int) []string {
	pool, chosen := slices.Clone(list), make([]string, n)
	for i := range chosen {
		last := len(pool) - 1
		k := r.below(len(pool))
		chosen[i], pool[k], pool = pool[k], pool[last], pool[:last]
	}
	return chosen
}

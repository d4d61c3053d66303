//go:build integration

package test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// Each misbehaviour of a server is met by a mount that starts while it lasts, and by one
// that works already. What becomes of it is seen by who reads the disk.
func TestFaultMatrix(t *testing.T) {
	const n = 64 // blocks
	s := makeImage(t, 64*kib, blocks(n, 4*kib)...)
	// Its blocks lie elsewhere: one is as much longer as the next is shorter.
	sizes := blocks(n, 3*kib)
	for i := 0; i < n; i += 2 {
		sizes[i] = 5 * kib
	}
	other := makeImage(t, 64*kib, sizes...)
	if len(s.image) != len(other.image) {
		t.Fatalf("the images have %d and %d bytes, want the same", len(s.image), len(other.image))
	}
	for _, m := range misbehaviours {
		start := func(t *testing.T) *origin {
			t.Parallel()
			place := m.at
			if place == nil {
				place = plainly
			}
			o := place(t, s)
			o.other = other
			o.right = m.server
			o.mend()
			return o
		}
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			if !m.later {
				t.Run("opening", func(t *testing.T) { m.checkOpening(t, start(t)) })
			}
			t.Run("reading", func(t *testing.T) { m.checkReading(t, start(t)) })
		})
	}
}

// misbehaviour is a way in which a server goes wrong, or what leads to it.
type misbehaviour struct {
	name string
	// at makes the server and says what is mounted; nil: plainly.
	at func(t *testing.T, s *synthetic) *origin
	// server is how it behaves before and after, wrong how it does meanwhile.
	server, wrong testserver.Config
	// begin is what else happens; nil: nothing. end takes it back, beside origin.mend.
	begin, end func(t *testing.T, o *origin)
	// later says that it can't be there before the mount.
	later bool
	// refused is what mount says while it lasts, with the exit status code (4 if that
	// is 0); empty: it mounts, and the disk can be read.
	refused string
	code    int
	// fails is what status says of the reads that failed; empty: none does.
	fails string
	// check is called at the end; nil: nothing.
	check func(t *testing.T, o *origin)
}

const (
	faultTimeout = 2 * time.Second
	// faultBound is how long a read may take, and an attempt to mount.
	faultBound = faultTimeout + time.Second
)

func (m *misbehaviour) goWrong(t *testing.T, o *origin) {
	t.Helper()
	o.srv.Set(func(c *testserver.Config) { *c = m.wrong })
	if m.begin != nil {
		m.begin(t, o)
	}
}

func (m *misbehaviour) goRight(t *testing.T, o *origin) {
	t.Helper()
	if m.end != nil {
		m.end(t, o)
	}
	o.mend()
}

// checkOpening checks what mount does while the misbehaviour lasts, and afterwards.
func (m *misbehaviour) checkOpening(t *testing.T, o *origin) {
	m.goWrong(t, o)
	dir := makeDir(t)
	p := o.startMount(t, dir)
	r := p.result(t)
	if took := p.ended.Sub(p.began); took > faultBound {
		t.Errorf("mount took %v, want at most %v", took, faultBound)
	}
	if m.refused == "" {
		if r.code != 0 {
			t.Fatalf("mount: %v, want success", r)
		}
		if m.fails == "" {
			o.checkReads(t, dir, 8, 9)
		}
		o.umount(t, dir)
	} else {
		code := m.code
		if code == 0 {
			code = 4
		}
		checkFailure(t, r, code, m.refused)
	}
	m.goRight(t, o)
	if r := o.startMount(t, dir).result(t); r.code != 0 {
		t.Fatalf("mount afterwards: %v, want success", r)
	}
	o.checkReads(t, dir, 16, 17)
	o.umount(t, dir)
	if m.check != nil {
		m.check(t, o)
	}
}

// checkReading checks what readers of a mount get while the misbehaviour lasts, and
// afterwards.
func (m *misbehaviour) checkReading(t *testing.T, o *origin) {
	// Blocks that are far from each other: the kernel reads ahead.
	const inMemory, buffered, direct, later, fresh = 8, 16, 24, 32, 40
	dir := makeDir(t)
	if r := o.startMount(t, dir).result(t); r.code != 0 {
		t.Fatalf("mount: %v, want success", r)
	}
	o.checkReads(t, dir, inMemory)

	m.goWrong(t, o)
	first := []*process{
		o.start(t, bufferedRead(diskOf(dir), buffered*64*kib, pageSize)...),
		o.start(t, directRead(diskOf(dir), direct*64*kib, pageSize)...),
	}
	o.checkReads(t, dir, inMemory)
	m.checkResult(t, o, first[0], buffered)
	m.checkResult(t, o, first[1], direct)
	m.checkResult(t, o, o.start(t, directRead(diskOf(dir), later*64*kib, pageSize)...), later)
	if m.fails != "" {
		if got := statusOf(t, dir).Reads.LastError; !strings.Contains(got, m.fails) {
			t.Errorf("status says %q, want %q in it", got, m.fails)
		}
	}

	m.goRight(t, o)
	o.checkReads(t, dir, fresh)
	for _, n := range []int{buffered, direct, later} { // a failure is remembered for a second
		waitFor(t, "read of what had failed", func() bool { return o.read(t, dir, n).code == 0 })
	}
	o.checkReads(t, dir, buffered, direct, later)
	o.umount(t, dir)
	if m.check != nil {
		m.check(t, o)
	}
}

// checkResult checks what a reader has got of block n while the misbehaviour lasts.
func (m *misbehaviour) checkResult(t *testing.T, o *origin, p *process, n int) {
	t.Helper()
	r := p.result(t)
	took := p.ended.Sub(p.began)
	t.Logf("%v: %s", took, p.name)
	if took > faultBound {
		t.Errorf("%s took %v, want at most %v", p.name, took, faultBound)
	}
	switch {
	case m.fails == "" && r.code != 0:
		t.Errorf("%s: %v, want the right bytes", p.name, r)
	case m.fails == "":
		checkBytes(t, p.name, r.stdout, o.s.block(n)[:pageSize])
	case r.code == 0 || r.stdout != "" || !strings.Contains(r.stderr, "Input/output error"):
		t.Errorf("%s: %v, want an I/O error and no data", p.name, r)
	}
}

// origin is where an image is mounted from.
type origin struct {
	s, other *synthetic // other is of the same size, with other blocks elsewhere
	srv      *testserver.Server
	right    testserver.Config
	url      string
	flags    []string // of mount
	on       *machine // nil: here

	// What only some have.
	elsewhere *elsewhere
	front     *front
	names     *nameServer
}

// plainly serves the image by HTTP.
func plainly(t *testing.T, s *synthetic) *origin {
	srv, url := serve(t, s.image)
	return &origin{s: s, srv: srv, url: url}
}

// mend has the server serve the image as it should.
func (o *origin) mend() {
	o.srv.AddBytes("disk.cloop", o.s.image)
	o.srv.Set(func(c *testserver.Config) { *c = o.right })
}

func (o *origin) start(t *testing.T, args ...string) *process {
	t.Helper()
	if o.on != nil {
		return startCmd(t, o.on.command(args[0], args[1:]...))
	}
	return start(t, args[0], args[1:]...)
}

func (o *origin) startMount(t *testing.T, dir string) *process {
	t.Helper()
	args := []string{cloopfs, "mount", "--profile", "none", "--speculate", "off", "--timeout", faultTimeout.String()}
	return o.start(t, slices.Concat(args, o.flags, []string{o.url, dir})...)
}

func (o *origin) umount(t *testing.T, dir string) {
	t.Helper()
	if r := o.start(t, cloopfs, "umount", dir).result(t); r.code != 0 || len(daemons(dir)) > 0 {
		t.Errorf("umount: %v, process %d; want success and none", r, daemons(dir))
	}
}

// read reads a page of block n, past the page cache.
func (o *origin) read(t *testing.T, dir string, n int) result {
	t.Helper()
	return o.start(t, directRead(diskOf(dir), n*o.s.blockSize, pageSize)...).result(t)
}

// checkReads checks that pages of these blocks are read right, within the bound.
func (o *origin) checkReads(t *testing.T, dir string, list ...int) {
	t.Helper()
	for _, n := range list {
		var r result
		if took := elapsed(func() { r = o.read(t, dir, n) }); took > faultBound {
			t.Errorf("read of block %d took %v, want at most %v", n, took, faultBound)
		}
		if r.code != 0 {
			t.Errorf("read of block %d: %v, want success", n, r)
			continue
		}
		checkBytes(t, "block", r.stdout, o.s.block(n)[:pageSize])
	}
}

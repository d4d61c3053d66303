package cache

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pierrec/lz4/v4"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/cloop/clooptest"
	"github.com/cloopfs/cloopfs/fetch"
)

// Whatever a crash leaves of an entry's pages, and whatever other processes throw
// away while it is read: never one wrong byte.
//
// An entry is used for a while: filled, thrown away and filled again, with a block
// that arrives damaged. Then its pages are put together, each as it was at one time
// or another, and the disk is read through the whole line.
func TestCrashLeavesNoWrongByte(t *testing.T) {
	for _, im := range crashImages(t) {
		t.Run(im.name, func(t *testing.T) {
			t.Parallel()
			c := crash{crashImage: im}
			if err := c.run(t); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d states: %d reads from the cache, %d mismatches, a damaged block fetched again %d times",
				c.tried, c.hits, c.mismatches, c.refetched)
			if c.hits == 0 || c.mismatches == 0 || (c.refetched == 0) != (im.damaged < 0) {
				t.Error("that is not what this test is for")
			}
		})
	}
}

// crashImage is an image, and what is right about it.
type crashImage struct {
	name    string
	file    []byte           // what the image is, or lies in
	parts   []blockio.Extent // of file: the image; nil if it is all of it
	raw     bool
	damaged int64 // the block that arrives damaged at first; -1 if none does
	states  int   // how many states to try

	truth  []byte           // the disk
	blocks []blockio.Extent // of the image: its stored blocks
	stored [][]byte         // their bytes
}

// crashImages are compressed with a checksum and without, and not at all. They have
// zeros in each kind of block, blocks smaller and larger than a page, tables of more
// than a page, and parts somewhere in another file.
func crashImages(t *testing.T) []*crashImage {
	mixed, err := os.ReadFile("../testdata/cloop/v4-mixed-odd.cloop")
	if err != nil {
		t.Fatal(err)
	}
	var blocks [][]byte
	for off, disk := 0, crashDisk(60<<10); off < len(disk); off += 3 << 10 {
		blocks = append(blocks, clooptest.Deflate(disk[off:off+3<<10], 9))
	}
	last, lastParts := insert(clooptest.AssembleLast(3<<10, blocks), 3)
	raw, rawParts := insert(crashDisk(150_000), 2)
	return []*crashImage{
		{name: "zlib", file: clooptest.Build(crashDisk(48<<10), 6<<10), damaged: 6, states: 400},
		{name: "zlib in parts of a file", file: last, parts: lastParts, damaged: 10, states: 400},
		{name: "stored, lz4 and zlib", file: buildMixed(crashDisk(70_000), 9<<10), damaged: -1, states: 400},
		{name: "many small blocks", file: buildMixed(crashDisk(260<<10), 512), damaged: -1, states: 40},
		{name: "all codecs, other encoders", file: mixed, damaged: -1, states: 40},
		{name: "raw", file: crashDisk(150_001), raw: true, damaged: -1, states: 600},
		{name: "raw in parts of a file", file: raw, parts: rawParts, raw: true, damaged: -1, states: 600},
	}
}

// crashDisk returns n bytes of a disk: random, text-like, and zeros, which a lost
// page looks like.
func crashDisk(n int) []byte {
	const piece = 9000
	rnd := rand.NewChaCha8([32]byte{5})
	p := make([]byte, n)
	for off := 0; off < n; off += piece {
		part := p[off:min(off+piece, n)]
		switch off / piece % 3 {
		case 0:
			rnd.Read(part)
		case 1:
			for i := range part {
				part[i] = "crash "[i%6] + byte(i/500)
			}
		}
	}
	return p
}

// buildMixed returns an image of version 4.0 whose blocks are stored, lz4 and zlib
// in turns.
func buildMixed(disk []byte, blockSize int) []byte {
	const zlib, stored, lz4Block = 0, 1, 3 // in an entry's four highest bits
	var blocks [][]byte
	var codecs []uint64
	for off := 0; off < len(disk); off += blockSize {
		block, codec := disk[off:min(off+blockSize, len(disk))], uint64(stored)
		switch len(blocks) % 3 {
		case 0:
			block, codec = clooptest.Deflate(block, 6), zlib
		case 1:
			p := make([]byte, lz4.CompressBlockBound(len(block)))
			if n, err := lz4.CompressBlock(block, p, nil); err == nil && n > 0 { // else it would not get smaller
				block, codec = p[:n], lz4Block
			}
		}
		blocks, codecs = append(blocks, block), append(codecs, codec)
	}
	image := clooptest.Header("V4.0", blockSize, len(blocks))
	off := uint64(len(image) + 8*(len(blocks)+1))
	for i, block := range blocks {
		image = binary.BigEndian.AppendUint64(image, codecs[i]<<60|off)
		off += uint64(len(block))
	}
	return append(binary.BigEndian.AppendUint64(image, off), bytes.Join(blocks, nil)...)
}

// insert returns a file that has image in n parts, the last first, as ISO images
// may have it.
func insert(image []byte, n int) (file []byte, parts []blockio.Extent) {
	const sector = 2048
	file = bytes.Repeat([]byte("around "), 1000)
	length := len(image)/n/sector*sector + sector
	parts = make([]blockio.Extent, n)
	for i := n - 1; i >= 0; i-- {
		part := image[i*length : min((i+1)*length, len(image))]
		file = append(file, make([]byte, sector-len(file)%sector)...)
		parts[i] = blockio.Extent{Off: int64(len(file)), Len: int64(len(part))}
		file = append(file, part...)
	}
	return append(file, "behind"...), parts
}

// look finds out what is right.
func (im *crashImage) look(t *testing.T) {
	l, err := im.open(&blockiotest.Source{Data: im.file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	im.truth = make([]byte, l.image.Size())
	if _, err := l.image.ReadAtContext(t.Context(), im.truth, 0); err != nil {
		t.Fatal(err)
	}
	for n := range l.index.Blocks() {
		e, err := l.index.Extent(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		stored := make([]byte, e.Len)
		if _, err := l.source.ReadAtContext(t.Context(), stored, e.Off); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		im.blocks, im.stored = append(im.blocks, e), append(im.stored, stored)
	}
}

// state is what a crash may leave.
type state struct {
	name   string
	choose choice
	busy   bool // read it in company, too
}

// crashes yields what a crash may leave of files. undecoded is how many writes there
// had been when nobody knew yet that a block was damaged.
func (im *crashImage) crashes(files *memFiles, undecoded int64) iter.Seq[state] {
	return func(yield func(state) bool) {
		list := directed(files, undecoded)
		for _, s := range list[:min(len(list), im.states/2)] {
			if !yield(s) {
				return
			}
		}
		for seed := range uint64(max(im.states-len(list), im.states/2)) {
			rnd := rand.New(rand.NewPCG(2, seed))
			kept := []float64{0, 0.5, 0.8, 0.95}[rnd.IntN(4)] // of the pages as they are now, at least
			sizes := rnd.IntN(4) == 0
			now := newest
			switch rnd.IntN(4) { // or some time ago
			case 0:
				now = files.after(rnd.Int64N(files.writes.Load()))
			case 1:
				now = files.after(undecoded)
			}
			choose := func(name string, page, n int) int {
				if rnd.Float64() < kept || page == wholeFile && !sizes {
					return now(name, page, n)
				}
				return rnd.IntN(n)
			}
			if !yield(state{fmt.Sprintf("random state %d", seed), choose, true}) {
				return
			}
		}
	}
}

// directed returns the states that chance may miss. Some have to be among those that
// are tried: no crash at all, nothing decoded yet, no data, no tables. In the others
// one page is older than all others, or the end of a file is missing, or all is as it
// was at some time, or the tables are of another time than the data.
func directed(files *memFiles, undecoded int64) []state {
	// but is what there is now, but for the pages that it applies to.
	but := func(version int, applies func(name string, page int) bool) choice {
		return func(name string, page, n int) int {
			if applies(name, page) {
				return version
			}
			return n - 1
		}
	}
	list := []state{
		{"no crash", newest, true},
		{"nothing decoded yet", files.after(undecoded), true},
		{"tables without data", but(0, func(name string, page int) bool { return name == dataName && page != wholeFile }), true},
		{"data without tables", but(0, func(name string, page int) bool { return name != dataName && page != wholeFile }), true},
	}
	rnd := rand.New(rand.NewPCG(1, 0))
	const moments = 30
	for i := range int64(moments) {
		writes := files.writes.Load() * i / moments
		list = append(list, state{fmt.Sprintf("after %d writes", writes), files.after(writes), false})
		// What was written later may be there before what was written earlier.
		other := files.after(rnd.Int64N(files.writes.Load()))
		list = append(list, state{fmt.Sprintf("data after %d writes", writes), func(name string, page, n int) int {
			if name == dataName {
				return files.after(writes)(name, page, n)
			}
			return other(name, page, n)
		}, false})
	}
	for _, name := range files.names() {
		one := func(what string, page, versions int) {
			// Zeros, what was there just before, and any other.
			for _, v := range []int{0, max(0, versions-2), rnd.IntN(versions)} {
				list = append(list, state{
					fmt.Sprintf("version %d of %d of %s", v, versions, what),
					but(v, func(n string, p int) bool { return n == name && p == page }), false,
				})
			}
		}
		one("the size of "+name, wholeFile, len(files.files[name].sizes))
		for page, versions := range files.files[name].history {
			one(fmt.Sprintf("page %d of %s", page, name), page, len(versions))
		}
	}
	const always = 4
	rnd.Shuffle(len(list)-always, func(i, j int) { list[always+i], list[always+j] = list[always+j], list[always+i] })
	return list
}

// crashLine is the whole line over an entry's files, or over the source alone.
type crashLine struct {
	*crashImage
	origin *blockiotest.Source
	source blockio.Source // the image's bytes
	disk   *files         // nil without an entry
	blocks *Blocks
	index  *cloop.Index
	runs   *fetch.Scheduler
	image  *cloop.Image
	buf    []byte // for reads
}

// open joins the layers as the program does. Nothing stays in memory that could
// hide what the files hold.
func (im *crashImage) open(origin *blockiotest.Source, dir directory) (_ *crashLine, err error) {
	l := &crashLine{crashImage: im, origin: origin, source: origin, buf: make([]byte, len(im.truth)+1)}
	ctx, options := context.Background(), fetch.Options{Keep: 1}
	if dir != nil {
		if l.disk, err = openFiles(dir, origin.Size(), true); err != nil {
			return nil, err
		}
		if l.blocks, err = im.store(l.disk); err != nil {
			return nil, err
		}
		l.source, options.Store = l.disk.Bytes(origin), l.blocks
	}
	if im.parts != nil {
		if l.source, err = blockio.OpenSection(ctx, l.source, im.parts); err != nil {
			return nil, err
		}
	}
	if im.raw {
		l.index, err = cloop.Raw(l.source.Size())
	} else {
		l.index, err = cloop.Open(ctx, l.source)
	}
	if err != nil {
		return nil, err
	}
	l.runs = fetch.New(l.source, l.index, options)
	l.image = cloop.NewImage(l.index, l.runs, NewMemory(0, l.index.BlockSize()))
	return l, nil
}

// store is the image's blocks in an entry.
func (im *crashImage) store(d *files) (*Blocks, error) {
	if im.parts != nil {
		return d.Blocks(im.parts, false)
	}
	return d.Blocks([]blockio.Extent{{Len: d.Size()}}, im.raw)
}

func (l *crashLine) close() {
	l.runs.Close()
	if l.disk != nil {
		l.disk.closeFiles()
	}
}

// read reads n bytes of the disk at off, or what there is of them.
func (l *crashLine) read(off, n int64) error {
	p := l.buf[:min(n, int64(len(l.truth))-off+1)] // one byte too many at the end
	got, err := l.image.ReadAtContext(context.Background(), p, off)
	if err != nil && err != io.EOF {
		return fmt.Errorf("read of %d bytes at %d: %w", n, off, err)
	}
	want := l.truth[off:min(off+n, int64(len(l.truth)))]
	if p = p[:got]; !bytes.Equal(p, want) {
		return fmt.Errorf("%d bytes at %d of the disk: %w", n, off, wrongByte(p, want))
	}
	return nil
}

// readAll reads the disk in reads of several sizes.
func (l *crashLine) readAll(rnd *rand.Rand) error {
	for off := int64(0); off < int64(len(l.truth)); {
		n := []int64{1, 4 << 10, 10_000, 20 << 10, 100_000, 128 << 10}[rnd.IntN(6)]
		if err := l.read(off, n); err != nil {
			return err
		}
		off += n
	}
	return nil
}

// errWrongByte is what must never be. TestMutants looks for it.
var errWrongByte = errors.New("wrong byte")

// wrongByte says where got is not want.
func wrongByte(got, want []byte) error {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Errorf("%w at %d: %#02x in place of %#02x", errWrongByte, i, got[i], want[i])
		}
	}
	return fmt.Errorf("%d bytes in place of %d", len(got), len(want))
}

// neighbour is another process that uses the same entry.
type neighbour struct {
	im     *crashImage
	disk   *files
	blocks *Blocks
	awake  atomic.Bool // it acts of its own accord

	// mu guards the field below.
	mu  sync.Mutex
	rnd *rand.Rand
}

func (im *crashImage) neighbour(t *testing.T, files *memFiles, rnd *rand.Rand) *neighbour {
	disk, err := openFiles(memDir{memFiles: files}, int64(len(im.file)), true)
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := im.store(disk)
	if err != nil {
		t.Fatal(err)
	}
	return &neighbour{im: im, rnd: rnd, disk: disk, blocks: blocks}
}

// turn lets it do one of the things that a process may do at any time, or nothing.
func (o *neighbour) turn() {
	if !o.awake.Load() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.rnd.IntN(20) > 0 {
		return
	}
	switch o.rnd.IntN(8) {
	case 0:
		o.evict(o.rnd.Int64N(o.disk.size) / regionSize * regionSize)
	case 1, 2, 3: // it stores a block that it has fetched
		n := o.rnd.IntN(len(o.im.blocks))
		o.blocks.Put(int64(n), o.im.blocks[n], o.im.stored[n])
	default:
		o.punch(o.rnd.IntN(2) == 0)
	}
}

// evict throws away a region, as Dir does.
func (o *neighbour) evict(off int64) {
	c := candidate{files: o.disk, meta: meta{Size: o.disk.size}}
	if _, err := c.punch(off); err != nil {
		panic(err) // in memory: can't fail
	}
}

// punch throws away a few pages: a region would be all of a small image. Entries of
// chunks are cleared before, or stay: they were in the reader's hand already, or
// the file system has lost the pages. Those of blocks stay always.
func (o *neighbour) punch(cleared bool) {
	pages := o.disk.size/pageSize + 1
	off := o.rnd.Int64N(pages) * pageSize
	n := min(1+o.rnd.Int64N(4), pages) * pageSize
	if cleared {
		o.disk.forgetChunks(blockio.Extent{Off: off, Len: min(n, o.disk.size-off)})
	}
	_ = o.disk.data.Punch(off, n)
}

// crash is the test of one image.
type crash struct {
	*crashImage
	tried, refetched int
	hits, mismatches int64
	// mutate, if it is set, changes what the files show to who reads after a crash.
	mutate func(*crashImage, memDir) directory
}

// run tries all states, until one is read wrongly.
func (c *crash) run(t *testing.T) error {
	c.look(t)
	used, undecoded := c.use(t)
	for s := range c.crashes(used, undecoded) {
		c.tried++
		if err := c.check(t, s, used.crash(s.choose)); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// dir is the files as they are read.
func (c *crash) dir(files memDir) directory {
	if c.mutate != nil {
		return c.mutate(c.crashImage, files)
	}
	return files
}

// use uses an entry for a while and returns its files. After so many writes as
// undecoded it had a block whose damage nobody had found yet.
func (c *crash) use(t *testing.T) (files *memFiles, undecoded int64) {
	rnd := rand.New(rand.NewPCG(3, 0))
	files = newMemFiles(int64(len(c.file)))
	origin := &blockiotest.Source{Data: c.file}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := c.open(origin, memDir{memFiles: files})
	must(err)
	origin.Open = c.damage()
	someReads := func() {
		t.Helper()
		for range 20 {
			must(l.read(rnd.Int64N(int64(len(c.truth))), 1+rnd.Int64N(30_000)))
		}
	}
	// Brought nearer, that is not decoded: a damaged block stays for a while.
	must(l.runs.ReadRun(t.Context(), blockio.Fill, 0, l.index.Blocks(), nil))
	undecoded = files.writes.Load()
	someReads()
	must(l.readAll(rnd))
	other := c.neighbour(t, files, rnd)
	for off := int64(0); off < l.disk.size; off += regionSize {
		other.evict(off)
	}
	someReads()
	// The same block once more, with the same bytes.
	for range 20 {
		n := rnd.IntN(len(c.blocks))
		l.blocks.Forget(int64(n), c.blocks[n])
		if rnd.IntN(4) > 0 {
			l.blocks.Put(int64(n), c.blocks[n], c.stored[n])
		}
	}
	for range 5 {
		other.punch(rnd.IntN(2) == 0)
	}
	l.close()
	l, err = c.open(origin, memDir{memFiles: files})
	must(err)
	defer l.close()
	must(l.readAll(rnd))
	for range 3 {
		other.punch(false)
	}
	someReads()
	return files, undecoded
}

// bad returns the damaged block as it arrives at first.
func (c *crash) bad() []byte {
	p := bytes.Clone(c.stored[c.damaged])
	p[len(p)/2] ^= 0x40
	return p
}

// damage is for a source that sends one block damaged, twice, but never to who asks
// for it again.
func (c *crash) damage() func(context.Context, blockio.Range, io.Reader) (io.Reader, error) {
	if c.damaged < 0 {
		return nil
	}
	good, bad := c.stored[c.damaged], c.bad()
	var times atomic.Int64
	return func(_ context.Context, r blockio.Range, body io.Reader) (io.Reader, error) {
		p, err := io.ReadAll(body)
		if !r.Refetch && bytes.Contains(p, good) && times.Add(1) <= 2 {
			p = bytes.Replace(p, good, bad, 1)
		}
		return bytes.NewReader(p), err
	}
}

// check reads what a crash has left: first each stored block by itself, then the
// disk, then the disk once more while another process throws away and stores what
// it likes.
func (c *crash) check(t *testing.T, s state, files *memFiles) error {
	if err := c.checkBlocks(files.clone()); err != nil {
		return err
	}
	seed := uint64(c.tried)
	rnd := rand.New(rand.NewPCG(4, seed))
	other := c.neighbour(t, files, rand.New(rand.NewPCG(5, seed)))
	origin := &blockiotest.Source{Data: c.file}
	l, err := c.open(origin, c.dir(memDir{files, other.turn}))
	if err != nil {
		return err
	}
	defer l.close()
	if err := l.readAll(rnd); err != nil {
		return err
	}
	if s.busy {
		for range 4 {
			other.punch(false)
		}
		other.awake.Store(true)
		if err := l.readAll(rnd); err != nil {
			return fmt.Errorf("in company: %w", err)
		}
	}
	c.count(l.disk)

	// What was kept of a damaged block as it came costs another request, once.
	again, most := 0, 0
	for _, r := range origin.Asked() {
		if r.Refetch {
			again++
		}
	}
	if c.damaged >= 0 {
		most = 1
	}
	if again > most {
		return fmt.Errorf("%d blocks came from the cache with a bad byte that their decoder found, want at most %d", again, most)
	}
	c.refetched += again
	return nil
}

// checkBlocks asks an entry for each stored block.
func (c *crash) checkBlocks(files *memFiles) error {
	disk, err := openFiles(c.dir(memDir{memFiles: files}), int64(len(c.file)), true)
	if err != nil {
		return err
	}
	defer disk.closeFiles()
	blocks, err := c.store(disk)
	if err != nil {
		return err
	}
	for n, e := range c.blocks {
		p := make([]byte, e.Len)
		if !blocks.Get(int64(n), e, p) || bytes.Equal(p, c.stored[n]) {
			continue
		}
		if int64(n) != c.damaged || !bytes.Equal(p, c.bad()) {
			return fmt.Errorf("stored block %d: %w", n, wrongByte(p, c.stored[n]))
		}
	}
	c.count(disk)
	return nil
}

// count adds the use that was made of an entry.
func (c *crash) count(d *files) {
	c.hits += d.Stats().Hits
	c.mismatches += d.Stats().Mismatches
}

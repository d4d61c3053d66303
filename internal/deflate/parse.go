package deflate

import "math/bits"

// effort is what a level spends on matches.
type effort struct {
	depth int // places to look at
	nice  int // a match as long as this is good enough
	lazy  int // how many of the next bytes may begin a better one
	haste int // where this many bytes had no match, one is passed over for each such many
	note  int // how many bytes of a match are noted for later ones
}

// efforts are by level; level 1 does not look for matches of three bytes at all. Each is at least as fast as zlib's and makes no larger
// output (make bench-create).
var efforts = [10]effort{
	1: {2, 8, 0, 16, 2},
	2: {4, 16, 0, 64, 8},
	3: {8, 24, 0, 128, 16},
	4: {10, 32, 1, never, maxMatch},
	5: {20, 48, 1, never, maxMatch},
	6: {40, 80, 1, never, maxMatch},
	7: {80, 130, 1, never, maxMatch},
	8: {200, maxMatch, 2, never, maxMatch},
	9: {600, maxMatch, 2, never, maxMatch},
}

// maxPass is how many bytes at most are passed over together.
const maxPass = 16

// never is more bytes than an input has.
const never = 1 << 40

// shortMatch is a length from which on every match is used.
const shortMatch = 8

// worth is, by length, the distance up to which a short match takes fewer bits than
// its bytes as literals.
type worth [shortMatch]int

// judge sets w from the average parts of a bit that a literal takes, and both
// symbols of a match.
func (w *worth) judge(literal, match int64) {
	for length := int64(minMatch); length < shortMatch; length++ {
		// The distance's extra bits are one less than its logarithm.
		w[length] = int(exp2(min(literal*length-match+oneBit, 20*oneBit)))
	}
}

// start is a guess from the first bytes.
func (w *worth) start(src []byte) {
	const sample, match = 4 << 10, 10 * oneBit
	var h histogram
	for _, b := range src[:min(len(src), sample)] {
		h.litLen[b]++
	}
	w.judge(entropy(h.litLen[:])/int64(max(1, min(len(src), sample))), match)
}

// learn judges by what a piece has shown, if it has shown enough.
func (w *worth) learn(h *histogram) {
	const enough = 32
	all, literals := count(h.litLen[:]), count(h.litLen[:endOfBlock])
	matches := all - literals
	if literals < enough || matches < enough {
		return
	}
	// The choice between the two takes as many bits as their shares say.
	literal := entropy(h.litLen[:endOfBlock])/literals + log2(all) - log2(literals)
	match := (entropy(h.litLen[endOfBlock:])+entropy(h.dist[:]))/matches + log2(all) - log2(matches)
	w.judge(literal, match)
}

// search is longest, but for short matches that cost more than they save.
func (e *Encoder) search(src []byte, i, beat, depth int) (length, dist int) {
	if len(src)-i < 4 {
		return 0, 0
	}
	length, dist = e.longest(src, i, beat, depth, e.effort.nice)
	if length < shortMatch && dist > e.worth[length] {
		return 0, 0
	}
	return length, dist
}

// parse turns src into literals and matches, and writes them.
func (e *Encoder) parse(src []byte) {
	e.tokens.reset()
	e.worth.start(src)
	pieces := 1 // up to the one that begins next
	missed := 0 // bytes without a match, in a row
	for i := 0; i < len(src); {
		if e.tokens.full() {
			e.flush(src, i, false)
			pieces = 1
		}
		if len(e.tokens.list) >= pieces*pieceTokens {
			e.worth.learn(&e.tokens.pieces[pieces-1].histogram)
			pieces++
		}
		length, dist := e.search(src, i, 0, e.effort.depth)
		noted := i + 1 // positions before this one are known to the matcher
		if length == 0 {
			for pass := min(missed/e.effort.haste, maxPass, len(src)-i-1); pass >= 0; pass-- {
				e.tokens.literal(src[i], i)
				i++
			}
			missed++
			continue
		}
		missed = 0
		for ahead := 1; ahead <= e.effort.lazy && length < e.effort.nice; ahead++ {
			n, d := e.search(src, i+ahead, length-1, e.effort.depth>>ahead)
			noted = i + ahead + 1
			if n == 0 || !better(n, d, length, dist, ahead) {
				continue
			}
			for ; ahead > 0; ahead-- {
				e.tokens.literal(src[i], i)
				i++
			}
			length, dist = n, d
		}
		e.tokens.match(length, dist, i)
		i += length
		for end := min(i, noted+e.effort.note, len(src)-3); noted < end; noted++ {
			e.insert(src, noted)
		}
	}
	e.flush(src, len(src), true)
}

// better says whether the match (n, d), so many bytes ahead, is worth the literals
// before it: a byte more is worth four bits, twice the distance one.
func better(n, d, length, dist, ahead int) bool {
	gain := 4*(n-length) + bits.Len(uint(dist)) - bits.Len(uint(d))
	return gain > 4*ahead-2
}

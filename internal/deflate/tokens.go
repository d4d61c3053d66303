package deflate

import "math/bits"

const (
	// pieceTokens is how many tokens have statistics of their own: a block ends
	// at a multiple of them.
	pieceTokens = 1 << 10
	// maxPieces bounds what is kept until it is written.
	maxPieces = 64

	endOfBlock = 256
	litLens    = 286 // symbols for literals and lengths
	dists      = 30  // symbols for distances
)

// token is a literal, or a match: matchFlag, length-3, distance-1.
type token uint32

const (
	matchFlag   token = 1 << 31
	lengthShift       = 16
)

// histogram counts symbols.
type histogram struct {
	litLen [litLens]uint32
	dist   [dists]uint32
}

func (h *histogram) add(o *histogram) {
	for i, n := range o.litLen {
		h.litLen[i] += n
	}
	for i, n := range o.dist {
		h.dist[i] += n
	}
}

// piece is some adjacent tokens.
type piece struct {
	histogram
	tokens []token
	off    int // in the input, of the first
	bits   int // about what they cost as a block
}

// tokens is what has been parsed and not written yet, in pieces.
type tokens struct {
	list   []token
	pieces [maxPieces]piece
	used   int // pieces, of which the last may grow
}

// full says that there is no room for as much as one round of the parser adds.
func (t *tokens) full() bool { return len(t.list) >= maxPieces*pieceTokens-maxLazy-1 }

// maxLazy is more than the literals that can precede a match in a round.
const maxLazy = 2 * maxMatch

// reset forgets all.
func (t *tokens) reset() { t.list, t.used = t.list[:0], 0 }

// current is the piece for a token at off.
func (t *tokens) current(off int) *piece {
	if len(t.list)%pieceTokens == 0 {
		t.pieces[t.used] = piece{off: off}
		t.used++
	}
	return &t.pieces[t.used-1]
}

func (t *tokens) literal(b byte, off int) {
	t.current(off).litLen[b]++
	t.list = append(t.list, token(b))
}

func (t *tokens) match(length, dist, off int) {
	p := t.current(off)
	p.litLen[lengthSymbols[length-minMatch]]++
	p.dist[distSymbol(uint32(dist-1))]++
	t.list = append(t.list, matchFlag|token(length-minMatch)<<lengthShift|token(dist-1))
}

// lengthSymbols are by length-3; lengthExtra is how many bits follow each symbol, and
// lengthBase what they count from.
var (
	lengthSymbols [maxMatch - minMatch + 1]uint16
	lengthExtra   [litLens]uint8
	lengthBase    [litLens]uint16
)

func init() {
	length := 0
	for s := endOfBlock + 1; s < litLens-1; s++ {
		extra := max(0, (s-endOfBlock-1)/4-1)
		lengthExtra[s], lengthBase[s] = uint8(extra), uint16(length)
		for range 1 << extra {
			lengthSymbols[length] = uint16(s)
			length++
		}
	}
	// 258 has a symbol of its own, although the one before could express it.
	lengthSymbols[maxMatch-minMatch], lengthBase[litLens-1] = litLens-1, maxMatch-minMatch
}

// distSymbol is the symbol of distance d+1.
func distSymbol(d uint32) uint32 {
	if d < 4 {
		return d
	}
	n := uint32(bits.Len32(d)) - 1
	return 2*n + d>>(n-1)&1
}

// distExtra is how many bits follow distance symbol s.
func distExtra(s uint32) uint32 { return max(s, 2)/2 - 1 }

package deflate

// flush writes the tokens of src up to end, and forgets them.
func (e *Encoder) flush(src []byte, end int, final bool) {
	t := &e.tokens
	if t.used == 0 { // an empty input
		e.bits.stored(nil, final)
		return
	}
	for i := range t.used {
		p := &t.pieces[i]
		p.tokens = t.list[i*pieceTokens : min((i+1)*pieceTokens, len(t.list))]
		p.bits = p.estimate()
	}
	pieces := merge(t.pieces[:t.used])
	for i := range pieces {
		p, last := &pieces[i], i == len(pieces)-1
		to := end
		if !last {
			to = pieces[i+1].off
		}
		e.writeBlock(p, src[p.off:to], final && last)
	}
	t.reset()
}

// merge joins adjacent pieces as long as that saves anything, those first where it
// saves most.
func merge(pieces []piece) []piece {
	type joint struct {
		bits  int // of the two as one
		saved int
	}
	join := func(i int) joint {
		both := pieces[i].histogram
		both.add(&pieces[i+1].histogram)
		n := both.estimate()
		return joint{n, pieces[i].bits + pieces[i+1].bits - n}
	}
	joints := make([]joint, len(pieces)-1, maxPieces)
	for i := range joints {
		joints[i] = join(i)
	}
	for len(joints) > 0 {
		best := 0
		for i, j := range joints {
			if j.saved > joints[best].saved {
				best = i
			}
		}
		if joints[best].saved < 0 {
			break
		}
		p, q := &pieces[best], &pieces[best+1]
		p.add(&q.histogram)
		p.bits = joints[best].bits
		p.tokens = p.tokens[:len(p.tokens)+len(q.tokens)] // they are adjacent
		pieces = append(pieces[:best+1], pieces[best+2:]...)
		joints = append(joints[:best], joints[best+1:]...)
		if best < len(joints) {
			joints[best] = join(best)
		}
		if best > 0 {
			joints[best-1] = join(best - 1)
		}
	}
	return pieces
}

// estimate is about how many bits a block takes: the entropy of its symbols, without
// the extra bits, which are the same in any block, and the codes.
func (h *histogram) estimate() int {
	const block, code = 60, 4 // bits of a header, and for each symbol that is used
	return int((entropy(h.litLen[:])+entropy(h.dist[:]))/oneBit) + block + code*(used(h.litLen[:])+used(h.dist[:]))
}

package deflate

import (
	"math/bits"
	"slices"
)

const maxCodeBits = 15

// code is a Huffman code: by symbol, its bits, the first one lowest, and how many.
type code struct {
	bits [litLens]uint16
	size [litLens]uint8
	heap []uint64 // symbols by frequency, while lengths are made
}

// build makes a code for counts with codes of up to limit bits. Two symbols at least get one: a
// decoder may not take less.
func (c *code) build(counts []uint32, limit int) {
	clear(c.size[:])
	list := c.heap[:0]
	for s, n := range counts {
		if n > 0 {
			list = append(list, uint64(n)<<16|uint64(s))
		}
	}
	for s := 0; len(list) < 2; s++ {
		if counts[s] == 0 {
			list = append(list, 1<<16|uint64(s))
		}
	}
	slices.Sort(list)
	c.heap = list

	var perSize [maxCodeBits + 1]int
	sizes(list, &perSize, limit)
	// The rarest symbols have the longest codes.
	i := 0
	for size := limit; size > 0; size-- {
		for range perSize[size] {
			c.size[list[i]&0xffff] = uint8(size)
			i++
		}
	}
	var first [maxCodeBits + 2]uint16
	for size := 1; size <= limit; size++ {
		first[size+1] = (first[size] + uint16(perSize[size])) << 1
	}
	for s := range counts {
		if size := c.size[s]; size > 0 {
			c.bits[s] = bits.Reverse16(first[size]) >> (16 - size)
			first[size]++
		}
	}
}

// sizes counts how many symbols have codes of each size: the best code for the
// frequencies, which are sorted, and then one that keeps to limit.
func sizes(list []uint64, perSize *[maxCodeBits + 1]int, limit int) {
	// Two queues, as both leaves and the nodes made of them come in order.
	n := len(list)
	var weight [2 * litLens]uint64
	var parent [2 * litLens]uint16
	for i, l := range list {
		weight[i] = l >> 16
	}
	leaf, node := 0, n
	for made := n; made < 2*n-1; made++ {
		for range 2 {
			least := node
			if leaf < n && (node == made || weight[leaf] <= weight[node]) {
				least = leaf
				leaf++
			} else {
				node++
			}
			weight[made] += weight[least]
			parent[least] = uint16(made)
		}
	}
	var depth [2 * litLens]uint8
	for i := 2*n - 3; i >= 0; i-- {
		depth[i] = depth[parent[i]] + 1
		if i < n {
			perSize[min(int(depth[i]), limit)]++
		}
	}
	// Those that were cut down take more than there is; each step gives one of them
	// half the place of a shorter one.
	total := 0
	for size := 1; size <= limit; size++ {
		total += perSize[size] << (limit - size)
	}
	for ; total > 1<<limit; total-- {
		perSize[limit]--
		size := limit - 1
		for perSize[size] == 0 {
			size--
		}
		perSize[size]--
		perSize[size+1] += 2
	}
}

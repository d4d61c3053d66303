//go:build purego || !(amd64 || arm64 || riscv64 || ppc64le || loong64)

package inflate

import "encoding/binary"

// view is a buffer whose bounds are checked.
type view struct{ b []byte }

func viewOf(b []byte) view { return view{b} }

func (v view) load64(i int) uint64     { return binary.LittleEndian.Uint64(v.b[i:]) }
func (v view) load8(i int) byte        { return v.b[i] }
func (v view) store8(i int, b byte)    { v.b[i] = b }
func (v view) store64(i int, w uint64) { binary.LittleEndian.PutUint64(v.b[i:], w) }
func (v view) copy8(to, from int)      { *(*[8]byte)(v.b[to:]) = *(*[8]byte)(v.b[from:]) }
func (v view) copy16(to, from int)     { *(*[16]byte)(v.b[to:]) = *(*[16]byte)(v.b[from:]) }

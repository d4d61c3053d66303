//go:build !purego && (amd64 || arm64 || riscv64 || ppc64le || loong64)

package inflate

import "unsafe"

// view is a buffer whose bounds are not checked. These machines have their lowest byte
// first, and load and store words wherever they lie.
type view struct{ p unsafe.Pointer }

func viewOf(b []byte) view { return view{unsafe.Pointer(unsafe.SliceData(b))} }

func (v view) load64(i int) uint64     { return *(*uint64)(unsafe.Add(v.p, i)) }
func (v view) load8(i int) byte        { return *(*byte)(unsafe.Add(v.p, i)) }
func (v view) store8(i int, b byte)    { *(*byte)(unsafe.Add(v.p, i)) = b }
func (v view) store64(i int, w uint64) { *(*uint64)(unsafe.Add(v.p, i)) = w }
func (v view) copy8(to, from int) {
	*(*uint64)(unsafe.Add(v.p, to)) = *(*uint64)(unsafe.Add(v.p, from))
}

func (v view) copy16(to, from int) {
	*(*[16]byte)(unsafe.Add(v.p, to)) = *(*[16]byte)(unsafe.Add(v.p, from))
}

//go:build !purego

#include "textflag.h"

// Weights of the bytes of a turn: 64 for the first, 1 for the last.
DATA weights<>+0x00(SB)/8, $0x393a3b3c3d3e3f40
DATA weights<>+0x08(SB)/8, $0x3132333435363738
DATA weights<>+0x10(SB)/8, $0x292a2b2c2d2e2f30
DATA weights<>+0x18(SB)/8, $0x2122232425262728
DATA weights<>+0x20(SB)/8, $0x191a1b1c1d1e1f20
DATA weights<>+0x28(SB)/8, $0x1112131415161718
DATA weights<>+0x30(SB)/8, $0x090a0b0c0d0e0f10
DATA weights<>+0x38(SB)/8, $0x0102030405060708
GLOBL weights<>(SB), RODATA|NOPTR, $64

DATA ones<>+0x00(SB)/8, $0x0001000100010001
DATA ones<>+0x08(SB)/8, $0x0001000100010001
DATA ones<>+0x10(SB)/8, $0x0001000100010001
DATA ones<>+0x18(SB)/8, $0x0001000100010001
GLOBL ones<>(SB), RODATA|NOPTR, $32

// func sumsAVX2(p []byte) (sum, weighted uint64)
//
// Y0: sums of bytes, four of 64 bits. Y1: sums of those before each turn, each of which
// counts 64 times. Y2, Y3: weighted sums within the turns, eight of 32 bits each: at most
// 4 * 255 * 64 per turn, of 1<<14 turns.
TEXT ·sumsAVX2(SB), NOSPLIT, $0-40
	MOVQ p_base+0(FP), SI
	MOVQ p_len+8(FP), CX
	VPXOR Y0, Y0, Y0
	VPXOR Y1, Y1, Y1
	VPXOR Y2, Y2, Y2
	VPXOR Y3, Y3, Y3
	VPXOR Y15, Y15, Y15
	VMOVDQU weights<>+0x00(SB), Y12
	VMOVDQU weights<>+0x20(SB), Y13
	VMOVDQU ones<>(SB), Y14

turn:
	VMOVDQU (SI), Y4
	VMOVDQU 32(SI), Y5
	VPADDQ Y0, Y1, Y1
	VPSADBW Y15, Y4, Y6
	VPSADBW Y15, Y5, Y7
	VPMADDUBSW Y12, Y4, Y8
	VPMADDUBSW Y13, Y5, Y9
	VPADDQ Y6, Y0, Y0
	VPMADDWD Y14, Y8, Y8
	VPMADDWD Y14, Y9, Y9
	VPADDQ Y7, Y0, Y0
	VPADDD Y8, Y2, Y2
	VPADDD Y9, Y3, Y3
	ADDQ $64, SI
	SUBQ $64, CX
	JNZ turn

	// Y2 and Y3 become four of 64 bits.
	VPSRLQ $32, Y2, Y4
	VPSRLQ $32, Y3, Y5
	VPBLENDD $0xaa, Y15, Y2, Y2
	VPBLENDD $0xaa, Y15, Y3, Y3
	VPADDQ Y4, Y2, Y2
	VPADDQ Y5, Y3, Y3
	VPADDQ Y3, Y2, Y2
	VPSLLQ $6, Y1, Y1
	VPADDQ Y2, Y1, Y1

	// The four become one.
	VEXTRACTI128 $1, Y0, X4
	VEXTRACTI128 $1, Y1, X5
	VPADDQ X4, X0, X0
	VPADDQ X5, X1, X1
	VPSRLDQ $8, X0, X4
	VPSRLDQ $8, X1, X5
	VPADDQ X4, X0, X0
	VPADDQ X5, X1, X1
	VMOVQ X0, AX
	VMOVQ X1, BX
	MOVQ AX, sum+24(FP)
	MOVQ BX, weighted+32(FP)
	VZEROUPPER
	RET

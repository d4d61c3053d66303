//go:build !purego

#include "textflag.h"

// Weights of the bytes of a turn: 32 for the first, 1 for the last.
DATA weights<>+0x00(SB)/8, $0x191a1b1c1d1e1f20
DATA weights<>+0x08(SB)/8, $0x1112131415161718
DATA weights<>+0x10(SB)/8, $0x090a0b0c0d0e0f10
DATA weights<>+0x18(SB)/8, $0x0102030405060708
GLOBL weights<>(SB), RODATA|NOPTR, $32

// func sumsNEON(p []byte) (sum, weighted uint64)
//
// V0: sums of bytes, two of 64 bits. V1: sums of those before each turn, each of which
// counts 32 times. V2: weighted sums within the turns, four of 32 bits: at most
// 2 * 255 * (32+24+16+8) per turn, of 1<<15 turns. What is a WORD the assembler has no name for.
TEXT ·sumsNEON(SB), NOSPLIT, $0-40
	MOVD p_base+0(FP), R0
	MOVD p_len+8(FP), R1
	MOVD $weights<>(SB), R2
	VLD1 (R2), [V16.B16, V17.B16]
	VEOR V0.B16, V0.B16, V0.B16
	VEOR V1.B16, V1.B16, V1.B16
	VEOR V2.B16, V2.B16, V2.B16

turn:
	VLD1.P 32(R0), [V4.B16, V5.B16]
	VADD V0.D2, V1.D2, V1.D2
	WORD $0x6e202886 // UADDLP V4.16B, V6.8H
	WORD $0x2e30c087 // UMULL V16.8B, V4.8B, V7.8H
	WORD $0x6e2068a6 // UADALP V5.16B, V6.8H
	WORD $0x6e308087 // UMLAL2 V16.16B, V4.16B, V7.8H
	WORD $0x6e6028c6 // UADDLP V6.8H, V6.4S
	WORD $0x2e3180a7 // UMLAL V17.8B, V5.8B, V7.8H
	WORD $0x6ea068c0 // UADALP V6.4S, V0.2D
	WORD $0x6e3180a7 // UMLAL2 V17.16B, V5.16B, V7.8H
	WORD $0x6e6068e2 // UADALP V7.8H, V2.4S
	SUBS $32, R1
	BNE turn

	WORD $0x6ea02842 // UADDLP V2.4S, V2.2D
	VSHL $5, V1.D2, V1.D2
	VADD V2.D2, V1.D2, V1.D2
	VADDP V0.D2, V0.D2, V0.D2
	VADDP V1.D2, V1.D2, V1.D2
	VMOV V0.D[0], R3
	VMOV V1.D[0], R4
	MOVD R3, sum+24(FP)
	MOVD R4, weighted+32(FP)
	RET

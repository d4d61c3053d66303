/*
 * Packs a disk into a cloop V4.0 image with the reference encoders, for tests:
 *
 *	cc -o pack pack.c -lz -llzma -llz4 -llzo2     (Debian: zlib1g-dev liblzma-dev liblz4-dev liblzo2-dev)
 *	pack first|last CODECS BLOCKSIZE DISK IMAGE
 *
 * first and last say where the header is. CODECS is a digit for each block in
 * turn, repeated: 0 zlib, 1 stored, 2 xz with CRC32, 3 lz4, 4 LZO1X.
 */
#include <lz4hc.h>
#include <lzma.h>
#include <lzo/lzo1x.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static void die(const char *why) { fprintf(stderr, "pack: %s\n", why); exit(1); }

static void put64(FILE *f, uint64_t v) { for (int i = 56; i >= 0; i -= 8) fputc(v >> i & 255, f); }

static size_t encode(int codec, unsigned char *in, size_t n, unsigned char *out, size_t room)
{
	switch (codec) {
	case 0: {
		uLongf k = room;
		if (compress2(out, &k, in, n, 9) != Z_OK) die("zlib");
		return k;
	}
	case 1:
		memcpy(out, in, n);
		return n;
	case 2: {
		size_t k = 0;
		if (lzma_easy_buffer_encode(6, LZMA_CHECK_CRC32, NULL, in, n, out, &k, room) != LZMA_OK) die("lzma");
		return k;
	}
	case 3: {
		int k = LZ4_compress_HC((char *)in, (char *)out, n, room, 9);
		if (k <= 0) die("lz4");
		return k;
	}
	case 4: {
		lzo_uint k = room;
		void *work = malloc(LZO1X_999_MEM_COMPRESS);
		if (!work || lzo1x_999_compress(in, n, out, &k, work) != LZO_E_OK) die("lzo");
		free(work);
		return k;
	}
	}
	die("no such codec");
	return 0;
}

static void header(FILE *f, uint32_t bs, uint32_t n)
{
	char preamble[128] = "#!/bin/sh\n#V4.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\nexit $?\n";
	fwrite(preamble, 1, sizeof preamble, f);
	for (int i = 24; i >= 0; i -= 8) fputc(bs >> i & 255, f);
	for (int i = 24; i >= 0; i -= 8) fputc(n >> i & 255, f);
}

int main(int argc, char **argv)
{
	if (argc != 6) die("usage: pack first|last CODECS BLOCKSIZE DISK IMAGE");
	int last = !strcmp(argv[1], "last");
	size_t bs = atol(argv[3]), room = 2 * bs + 65536, n = 0;
	FILE *in = fopen(argv[4], "rb"), *out = fopen(argv[5], "wb"), *data = tmpfile();
	unsigned char *block = malloc(bs), *stored = malloc(room);
	uint64_t *entries = malloc(sizeof *entries), off = 0;
	if (!in || !out || !data || !block || !stored || !entries || lzo_init() != LZO_E_OK) die("can't start");
	for (size_t k; (k = fread(block, 1, bs, in)) > 0; n++) {
		int codec = argv[2][n % strlen(argv[2])] - '0';
		size_t len = encode(codec, block, k, stored, room);
		fwrite(stored, 1, len, data);
		entries = realloc(entries, (n + 2) * sizeof *entries);
		entries[n] = (uint64_t)codec << 60 | off;
		off += len;
	}
	entries[n] = off;
	uint64_t start = last ? 0 : 136 + 8 * (n + 1);
	if (!last) {
		header(out, bs, n);
		for (size_t i = 0; i <= n; i++) put64(out, entries[i] + start);
	}
	rewind(data);
	for (size_t k; (k = fread(stored, 1, room, data)) > 0;) fwrite(stored, 1, k, out);
	if (last) {
		for (size_t i = 0; i <= n; i++) put64(out, entries[i]);
		header(out, bs, n);
	}
	return fclose(out) ? 1 : 0;
}

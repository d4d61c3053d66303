/* Decodes blocks of a file, each with its length in 4 bytes before it. For each line
   "FIRST COUNT" on stdin it decodes those, and prints the nanoseconds of CPU time.

   Arguments: the file and the size of a decoded block. It is built with -DLIBDEFLATE
   -ldeflate, with -DZLIBNG -lz-ng, or with -lz. */
#include <stdio.h>
#include <stdlib.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#ifdef LIBDEFLATE
#include <libdeflate.h>
static struct libdeflate_decompressor *decoder;
static void start(void) { decoder = libdeflate_alloc_decompressor(); }
static int decode(const unsigned char *in, size_t n, unsigned char *out, size_t size)
{
	size_t got;
	return libdeflate_zlib_decompress(decoder, in, n, out, size, &got) == LIBDEFLATE_SUCCESS && got == size;
}
#else
#ifdef ZLIBNG
#include <zlib-ng.h>
#define z_stream zng_stream
#define inflateInit zng_inflateInit
#define inflateReset zng_inflateReset
#define inflate zng_inflate
#else
#include <zlib.h>
#endif
static z_stream stream;
static void start(void) { inflateInit(&stream); }
static int decode(const unsigned char *in, size_t n, unsigned char *out, size_t size)
{
	inflateReset(&stream);
	stream.next_in = (void *)in;
	stream.avail_in = n;
	stream.next_out = out;
	stream.avail_out = size;
	return inflate(&stream, Z_FINISH) == Z_STREAM_END && stream.avail_out == 0;
}
#endif

static int64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

int main(int argc, char **argv)
{
	FILE *f = argc == 3 ? fopen(argv[1], "rb") : NULL;
	size_t size = argc == 3 ? strtoul(argv[2], NULL, 10) : 0, count = 0, room = 0;
	unsigned char **blocks = NULL, *out = malloc(size);
	uint32_t *lengths = NULL, length;
	unsigned long first, n;

	if (!f || !out)
		return 1;
	for (; fread(&length, sizeof(length), 1, f) == 1; count++) {
		if (count == room) {
			room = room * 2 + 1024;
			blocks = realloc(blocks, room * sizeof(*blocks));
			lengths = realloc(lengths, room * sizeof(*lengths));
		}
		lengths[count] = length;
		blocks[count] = malloc(length);
		if (fread(blocks[count], 1, length, f) != length)
			return 1;
	}
	memset(out, 0, size);
	start();
	while (scanf("%lu %lu", &first, &n) == 2) {
		int64_t begin = now();
		for (unsigned long i = first; i < first + n; i++)
			if (i >= count || !decode(blocks[i], lengths[i], out, size))
				return 1;
		printf("%lld\n", (long long)(now() - begin));
		fflush(stdout);
	}
	return 0;
}

/* Packs a file in blocks by liblzo2's lzo1x_999_compress, and writes each with its length
   in 4 bytes before it, without blocks of zeros. Arguments: the file, the size of a
   block, the new file. Built with -llzo2. */
#include <lzo/lzo1x.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	FILE *in = argc == 4 ? fopen(argv[1], "rb") : NULL, *out = argc == 4 ? fopen(argv[3], "wb") : NULL;
	size_t size = argc == 4 ? strtoul(argv[2], NULL, 10) : 0;
	unsigned char *block = malloc(size), *packed = malloc(size + size / 16 + 67), *work = malloc(LZO1X_999_MEM_COMPRESS);

	if (!in || !out || !block || !packed || !work || lzo_init() != LZO_E_OK)
		return 1;
	while (fread(block, 1, size, in) == size) {
		lzo_uint n = 0;
		uint32_t length;
		if (lzo1x_999_compress(block, size, packed, &n, work) != LZO_E_OK)
			return 1;
		length = n;
		if (n <= size / 64)
			continue;
		if (fwrite(&length, sizeof(length), 1, out) != 1 || fwrite(packed, 1, n, out) != n)
			return 1;
	}
	return fclose(out) != 0;
}

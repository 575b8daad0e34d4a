// SPDX-License-Identifier: GPL-2.0-only
/*
 * A file on tmpfs that is appended to, block by block, and begun anew when it
 * has FILE_BLOCKS. After each block a few older ones are read back.
 */
#include <fcntl.h>
#include <unistd.h>

#include "tasks.h"

#define BLOCK_WORDS (FILE_BLOCK_SIZE / sizeof(u64))
#define WRITE_MS 10
#define READ_BACK 8

/* @block counts on from one file to the next. */
static u64 seed(u64 block)
{
	return mix(shared->nonce + mix(block));
}

static void read_back(int fd, u64 begin, u64 block)
{
	struct writer *own = &shared->writer;
	u64 words[BLOCK_WORDS];

	if (pread(fd, words, sizeof(words), (block - begin) * sizeof(words)) != sizeof(words))
		fault(&own->faults, "block %llu cannot be read: %m", block);
	else if (first_difference(words, BLOCK_WORDS, seed(block)) < BLOCK_WORDS)
		fault(&own->faults, "block %llu differs", block);
	own->verified++;
}

static void fill_file(int fd)
{
	struct writer *own = &shared->writer;
	u64 begin = own->blocks, next = 0;
	u64 words[BLOCK_WORDS];

	for (u64 i = 0; i < FILE_BLOCKS; i++) {
		fill_pattern(words, BLOCK_WORDS, seed(begin + i));
		if (write(fd, words, sizeof(words)) != sizeof(words))
			die("write to %s", FILE_NAME);
		own->blocks++;
		for (int n = 0; n < READ_BACK; n++, next++) {
			if (next > i)
				next = 0;
			read_back(fd, begin, begin + next);
		}
		sleep_ms(WRITE_MS);
	}
}

void write_file(void)
{
	int fd = open(FILE_NAME, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		die("open %s", FILE_NAME);
	for (;;) {
		if (lseek(fd, 0, SEEK_SET) || ftruncate(fd, 0))
			die("truncate %s", FILE_NAME);
		fill_file(fd);
	}
}

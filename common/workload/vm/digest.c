// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page digests. They are taken while the guest is paused and on an emulated
 * CPU, so the hash is the cheapest that is good enough: a folded 64x64
 * multiplication per two words, in the manner of wyhash.
 */
#include "guest_ram.h"
#include "parallel.h"

#define SECRET_0 0xa0761d6478bd642full
#define SECRET_1 0xe7037ed1a0b428dbull

static inline u64 fold_multiply(u64 a, u64 b)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	return (u64)product ^ (u64)(product >> 64);
}

/*
 * Depends on the value and the place of each of the @count words; @count is even.
 *
 * Aligned, so that the loop never lies across two pages: QEMU's TCG does not
 * chain translated blocks of different pages, which made it five times slower.
 */
__noinline __aligned(256) u64 digest_words(const u64 *words, u64 count)
{
	u64 hash = SECRET_0 ^ count;

	for (u64 i = 0; i < count; i += 2)
		hash = fold_multiply(words[i] ^ SECRET_1, words[i + 1] ^ hash);
	return hash;
}

struct digest_job {
	const u8 *ram;
	u64 *digests;
};

static void digest_range(void *argument, u64 first, u64 end)
{
	const struct digest_job *job = argument;

	for (u64 page = first; page < end; page++)
		job->digests[page] = digest_words((u64 *)(job->ram + page * GUEST_PAGE_SIZE),
						  GUEST_PAGE_WORDS);
}

void digest_pages(const u8 *ram, u64 pages, u64 *digests)
{
	struct digest_job job = { .ram = ram, .digests = digests };

	parallel_pages(digest_range, &job, pages);
}

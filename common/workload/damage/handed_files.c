// SPDX-License-Identifier: GPL-2.0-only
/*
 * The host knows from the machine's RAM what was in the files before the
 * kexec, and where. Here they are made, and in the next kernel it is said
 * which pages they consist of there, so that the host can look at these.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "handed_files.h"

#define PAGE_SIZE 4096ull
/* Of a size that was damaged no more than this is looked at. */
#define MOST_PAGES 4096ull
#define LINE_SIZE 3500
/* What is allocated and written when the files are gone: pages with two owners show. */
#define USED_BYTES (64ull << 20)

static u64 word_of(const struct handed_file *file, u64 page)
{
	u64 seed = param_nonce() ^ file->token << 32 ^ (u64)file->session[0] << 40;

	return (seed ^ page) * 0x9e3779b97f4a7c15ull | 1;
}

/* Each word of a page is another one, and none is 0. */
static void fill_page(const struct handed_file *file, u64 page, u64 *words)
{
	u64 word = word_of(file, page);

	for (unsigned int i = 0; i < PAGE_SIZE / sizeof(u64); i++)
		words[i] = word + i * 0x100000002ull;
}

static void key_of(const struct handed_file *file, const char *what, char *key, size_t size)
{
	snprintf(key, size, "%s.%s.%llu", what, file->session, file->token);
}

/* Size, position and seals, in the order in which they stand in the record. */
static void say_properties(const struct handed_file *file)
{
	struct stat stat;
	char key[96];

	must(sys(fstat(file->fd, &stat)));
	key_of(file, "properties", key, sizeof(key));
	fact(key, "%llu:%llu:%ld", (u64)must(sys(lseek(file->fd, 0, SEEK_CUR))),
	     (u64)stat.st_size, (long)must(sys(fcntl(file->fd, F_GET_SEALS))));
}

/* Pages that hold what was written here, of a file that has @pages. */
static u64 own_pages(const struct handed_file *file, u64 pages)
{
	return file->device_from && file->device_from < pages ? file->device_from : pages;
}

static void make_file(struct handed_file *file)
{
	u64 page[PAGE_SIZE / sizeof(u64)];

	file->fd = must(sys(memfd_create(file->session, MFD_CLOEXEC | MFD_ALLOW_SEALING)));
	must(sys(ftruncate(file->fd, file->pages * PAGE_SIZE)));
	for (u64 i = 0; i < file->pages; i++) {
		fill_page(file, i, page);
		must(sys(pwrite(file->fd, page, sizeof(page), i * PAGE_SIZE)));
	}
	must(sys(lseek(file->fd, file->position, SEEK_SET)));
	must(sys(fcntl(file->fd, F_ADD_SEALS, file->seals)));
}

static bool same_session(const struct handed_file *a, const struct handed_file *b)
{
	return !strcmp(a->session, b->session);
}

void make_files(struct handed_file *files)
{
	for (struct handed_file *file = files; file->session; file++)
		make_file(file);
}

/* Preserves the files that were made. */
void hand_over(struct handed_file *files, int luo_fd)
{
	for (struct handed_file *file = files; file->session; file++) {
		if (file > files && same_session(file, file - 1))
			file->session_fd = file[-1].session_fd;
		else
			file->session_fd = must(luo_create_session(luo_fd, file->session));
		must(luo_preserve_fd(file->session_fd, file->fd, file->token));
		say_properties(file);
		if (file->device_from)
			fact("device.memory", "%s.%llu:%llu", file->session, file->token,
			     file->device_from);
	}
}

/* Retrieves what there is; says what each call gave. */
void take_over(struct handed_file *files, int luo_fd)
{
	char key[96];

	for (struct handed_file *file = files; file->session; file++) {
		if (file > files && same_session(file, file - 1)) {
			file->session_fd = file[-1].session_fd;
		} else {
			file->session_fd = luo_retrieve_session(luo_fd, file->session);
			snprintf(key, sizeof(key), "session.%s", file->session);
			fact(key, "%d", file->session_fd < 0 ? file->session_fd : 0);
		}
		file->fd = -ENOENT;
		if (file->session_fd >= 0)
			file->fd = luo_retrieve_fd(file->session_fd, file->token);
		key_of(file, "file", key, sizeof(key));
		fact(key, "%d", file->fd < 0 ? file->fd : 0);
		if (file->fd >= 0)
			say_properties(file);
	}
}

/* Page frames "PFN:COUNT,...", in pieces that fit into a line. */
static void say_frames(const struct handed_file *file, const char *when, const u64 *pfns, u64 pages)
{
	char line[LINE_SIZE + 64] = "", what[64], key[96];
	unsigned int piece = 0;
	size_t len = 0;

	for (u64 i = 0; i < pages;) {
		u64 count = 1;

		while (i + count < pages && pfns[i + count] == pfns[i] + count)
			count++;
		len += snprintf(line + len, sizeof(line) - len, "%s%llu:%llu", len ? "," : "",
				pfns[i], count);
		i += count;
		if (len < LINE_SIZE && i < pages)
			continue;
		snprintf(what, sizeof(what), "frames.%s", when);
		key_of(file, what, key, sizeof(key));
		snprintf(key + strlen(key), sizeof(key) - strlen(key), ".%u", piece++);
		fact(key, "%s", line);
		len = 0;
	}
}

/* How many pages do not hold what was written; by read(), which zeroes what is not up to date. */
static u64 wrong_pages(const struct handed_file *file, u64 pages)
{
	u64 seen[PAGE_SIZE / sizeof(u64)], due[PAGE_SIZE / sizeof(u64)], wrong = 0;

	for (u64 i = 0; i < own_pages(file, pages); i++) {
		fill_page(file, i, due);
		wrong += sys(pread(file->fd, seen, PAGE_SIZE, i * PAGE_SIZE)) != (long)PAGE_SIZE ||
			 memcmp(seen, due, PAGE_SIZE);
	}
	return wrong;
}

static void say_content(const struct handed_file *file, const char *when)
{
	u64 pages, *pfns;
	struct stat stat;
	char key[96];
	u8 *memory;

	must(sys(fstat(file->fd, &stat)));
	pages = ((u64)stat.st_size + PAGE_SIZE - 1) / PAGE_SIZE;
	if (pages > MOST_PAGES)
		pages = MOST_PAGES;
	key_of(file, when, key, sizeof(key));
	fact(key, "%llu of %llu", wrong_pages(file, pages), pages);
	if (!pages)
		return;
	memory = mmap(NULL, pages * PAGE_SIZE, PROT_READ, MAP_SHARED, file->fd, 0);
	must_be(memory != MAP_FAILED, "%s", errno_name(-errno));
	pfns = must_be_memory(calloc(pages, sizeof(*pfns)));
	must(sys(madvise(memory, pages * PAGE_SIZE, MADV_POPULATE_READ)));
	must(pagemap_read(memory, pages, pfns));
	say_frames(file, when, pfns, pages);
	must(sys(munmap(memory, pages * PAGE_SIZE)));
	free(pfns);
}

static void write_text(const char *path, const char *text)
{
	int fd = must(sys(open(path, O_WRONLY | O_CLOEXEC)));

	must(sys(write(fd, text, strlen(text))));
	close(fd);
}

/*
 * What is in the files at this moment, and where: the host looks at it there.
 * What the kernel thinks that it may drop is dropped first.
 */
void say_contents(const struct handed_file *files, const char *when)
{
	write_text("/proc/sys/vm/drop_caches", "3");
	for (const struct handed_file *file = files; file->session; file++)
		if (file->fd >= 0)
			say_content(file, when);
	await(when);
}

void finish_sessions(struct handed_file *files)
{
	char key[96];

	for (struct handed_file *file = files; file->session; file++) {
		if (file->session_fd < 0 || (file > files && same_session(file, file - 1)))
			continue;
		snprintf(key, sizeof(key), "finish.%s", file->session);
		fact(key, "%d", luo_finish(file->session_fd));
		close(file->session_fd);
	}
}

/* Memory that was given back is used again: a page that two own, or none, is found out then. */
void let_go_and_use_memory(struct handed_file *files)
{
	u8 *memory;

	for (struct handed_file *file = files; file->session; file++)
		if (file->fd >= 0)
			close(file->fd);
	memory = mmap(NULL, USED_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must_be(memory != MAP_FAILED, "%s", errno_name(-errno));
	for (u64 at = 0; at < USED_BYTES; at += PAGE_SIZE)
		memory[at] = 1;
	must(sys(munmap(memory, USED_BYTES)));
	write_text("/proc/sys/vm/compact_memory", "1");
}

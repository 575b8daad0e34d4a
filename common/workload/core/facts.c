// SPDX-License-Identifier: GPL-2.0-only
/* The facts that every side of every stage begins with. */
#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "workload.h"

#define NOTES_SIZE 4096
/* A zone has a few hundred bytes for each CPU. */
#define ZONEINFO_SIZE (256 << 10)

/* From the start of an open file, however often that was done before. */
static ssize_t read_again(int fd, void *buffer, size_t size)
{
	size_t len = 0;
	ssize_t got;

	do {
		got = sys(pread(fd, (char *)buffer + len, size - len, len));
		if (got > 0)
			len += got;
	} while (got > 0 && len < size);
	return got < 0 ? got : (ssize_t)len;
}

ssize_t read_file(const char *path, void *buffer, size_t size)
{
	int fd = sys(open(path, O_RDONLY | O_CLOEXEC));
	ssize_t len;

	if (fd < 0)
		return fd;

	len = read_again(fd, buffer, size);
	close(fd);
	return len;
}

ssize_t read_text(const char *path, char *text, size_t size)
{
	ssize_t len = read_file(path, text, size - 1);

	text[len < 0 ? 0 : len] = '\0';
	return len;
}

static void fact_from_file(const char *key, const char *path)
{
	char text[4096];

	if (read_text(path, text, sizeof(text)) < 0)
		return;
	text[strcspn(text, "\n")] = '\0';
	fact(key, "%s", text);
}

/* True and the text after "@field:" in a file of such lines. */
static bool field_of_file(const char *path, const char *field, char *value, size_t size)
{
	char line[256];
	bool found = false;
	FILE *file;

	file = fopen(path, "re");
	if (!file)
		return false;

	while (!found && fgets(line, sizeof(line), file)) {
		size_t len = strlen(field);
		char *colon = strchr(line, ':');

		if (!colon || strncmp(line, field, len) || !strchr("\t:", line[len]))
			continue;
		snprintf(value, size, "%s", colon + 1 + strspn(colon + 1, " \t"));
		found = true;
	}
	fclose(file);
	return found;
}

/* One of the kernel's own files, which is there. */
void write_to(const char *path, const char *text)
{
	int fd = must(sys(open(path, O_WRONLY | O_CLOEXEC)));

	must(sys(write(fd, text, strlen(text))));
	close(fd);
}

/* Value of a line of /proc/meminfo, 0 when there is none. */
u64 meminfo_kb(const char *field)
{
	char value[64];

	if (!field_of_file("/proc/meminfo", field, value, sizeof(value)))
		return 0;
	return strtoull(value, NULL, 10);
}

/* Of /proc/self/status, which has it: nothing there is not 0. */
u64 own_kb(const char *field)
{
	char value[64];

	must_be(field_of_file("/proc/self/status", field, value, sizeof(value)),
		"/proc/self/status has no %s", field);
	return strtoull(value, NULL, 10);
}

static int proc_file(const char *path)
{
	return must(sys(open(path, O_RDONLY | O_CLOEXEC)));
}

/* The sum of what follows each @word of one of /proc's files, which is read anew. */
static u64 sum_of(int fd, const char *word)
{
	static char text[ZONEINFO_SIZE];
	ssize_t len = must(read_again(fd, text, sizeof(text) - 1));
	u64 sum = 0;

	must_be(len < (ssize_t)sizeof(text) - 1, "%s: more than %zu bytes", word, sizeof(text));
	text[len] = '\0';
	for (const char *at = text; (at = strstr(at, word)); sum += strtoull(at, NULL, 10))
		at += strlen(word);
	return sum;
}

/*
 * MemAvailable, and the free pages on the CPUs' own lists, which are not in it:
 * with large pages these are 16 MiB and more. What a kworker takes off the lists
 * (mm/vmstat.c, vmstat_update()) between two reads would be counted twice, or
 * not at all: 6 MiB was seen. So both are read again until nothing moved. The
 * files stay open meanwhile: each that is opened takes pages off the lists, and
 * their reader would wait for itself.
 */
u64 available_kb(void)
{
	int meminfo = proc_file("/proc/meminfo"), zoneinfo = proc_file("/proc/zoneinfo");
	u64 before, after = sum_of(zoneinfo, " count: "), kb;

	for (int tries = 0; tries < 1000; tries++) {
		before = after;
		kb = sum_of(meminfo, "MemAvailable:");
		after = sum_of(zoneinfo, " count: ");
		if (before == after)
			break;
	}
	close(meminfo);
	close(zoneinfo);
	return kb + after * (sysconf(_SC_PAGESIZE) / 1024);
}

static void fact_build_id(void)
{
	static u8 notes[NOTES_SIZE];
	ssize_t len = read_file("/sys/kernel/notes", notes, sizeof(notes));
	size_t at = 0;

	while (len > 0 && at + sizeof(Elf64_Nhdr) <= (size_t)len) {
		const Elf64_Nhdr *note = (const void *)(notes + at);
		size_t name = at + sizeof(*note);
		size_t desc = name + ((note->n_namesz + 3) & ~3u);
		char hex[2 * 64 + 1];

		at = desc + ((note->n_descsz + 3) & ~3u);
		if (at > (size_t)len)
			return;
		if (note->n_type != NT_GNU_BUILD_ID || note->n_namesz != 4 ||
		    memcmp(notes + name, "GNU", 4) || note->n_descsz > 64)
			continue;
		for (u32 i = 0; i < note->n_descsz; i++)
			sprintf(hex + 2 * i, "%02x", notes[desc + i]);
		fact("kernel.build_id", "%s", hex);
		return;
	}
}

static void fact_tsc_khz(void)
{
	u64 khz = counter_khz();

	if (khz)
		fact("tsc.khz", "%llu", khz);
}

/* A file's lines in one. None is no fact. */
static void fact_of_lines(const char *key, const char *path)
{
	char text[1024];

	if (read_text(path, text, sizeof(text)) <= 0)
		return;
	for (char *end = strchr(text, '\n'); end; end = strchr(end, '\n'))
		*end = end[1] ? ' ' : '\0';
	fact(key, "%s", text);
}

/* The page in which the list of them is handed over; this kernel hands it on. */
static void fact_scratch_list(void)
{
	u64 address = kho_list_address();

	if (address)
		fact("kho.list_reserved", "%d", page_is_reserved(address));
}

/* Page blocks of which nothing but what can be moved is allocated: KHO's scratch areas. */
static void fact_cma_blocks(void)
{
	char line[512], *word, *save;
	int column = -1, at = 0;
	u64 blocks = 0;
	FILE *file = fopen("/proc/pagetypeinfo", "re");

	must_be(file, "/proc/pagetypeinfo cannot be read");
	while (fgets(line, sizeof(line), file)) {
		bool counts = column >= 0 && !strncmp(line, "Node", 4);

		if (strncmp(line, "Number of blocks type", 21) && !counts)
			continue;
		/* "Node 0, zone DMA" has as many words as "Number of blocks type". */
		at = 0;
		for (word = strtok_r(line, " \n", &save); word; word = strtok_r(NULL, " \n", &save)) {
			if (!counts && !strcmp(word, "CMA"))
				column = at;
			if (counts && at == column)
				blocks += strtoull(word, NULL, 10);
			at++;
		}
	}
	fclose(file);
	fact("kho.cma_blocks", "%llu", blocks);
}

/* The host stamps the line that says so: a wall clock that leaps is one that it does not. */
static void fact_wall_clock(const char *key)
{
	struct timespec now;

	must(sys(clock_gettime(CLOCK_REALTIME, &now)));
	fact(key, "%llu", now.tv_sec * 1000000000ull + now.tv_nsec);
}

/* The kernel's clock and the counter, read at one moment: two such moments give its rate. */
static void fact_clock(const char *key)
{
	u64 shortest = ~0ull, clock = 0, counter = 0;

	for (int tries = 0; tries < 10; tries++) {
		u64 start = read_counter(), time = now_ns(), end = read_counter();

		if (end - start >= shortest)
			continue;
		shortest = end - start;
		clock = time;
		counter = start + shortest / 2;
	}
	fact(key, "%llu:%llu", clock, counter);
}

static void set_wall_clock_ahead(void)
{
	struct timespec now;

	must(sys(clock_gettime(CLOCK_REALTIME, &now)));
	now.tv_sec += 3600;
	must(sys(clock_settime(CLOCK_REALTIME, &now)));
}

/* The first CPU that this kernel knows: the one that it was started on. */
static void report_boot_cpu(void)
{
	FILE *file = must_be_memory(fopen("/proc/cpuinfo", "re"));
	char line[256], id[32] = "not said";

	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "initial apicid : %31s", id) == 1)
			break;
	fclose(file);
	fact("boot_cpu", "%s", id);
}

void print_common_facts(enum side side)
{
	struct utsname name;
	char nonce[32];
	int luo_fd;

	fact("side", "%s", side == SIDE_INCOMING ? "incoming" : "outgoing");
	must(sys(uname(&name)));
	fact("kernel.release", "%s", name.release);
	fact_build_id();
	fact_from_file("kernel.boot_id", "/proc/sys/kernel/random/boot_id");
	fact_from_file("kernel.cmdline", "/proc/cmdline");
	fact_from_file("kernel.taint", "/proc/sys/kernel/tainted");
	fact("mem.total_kb", "%llu", meminfo_kb("MemTotal"));
	fact("cpus", "%ld", sysconf(_SC_NPROCESSORS_ONLN));
	report_boot_cpu();
	fact_tsc_khz();
	if (side == SIDE_INCOMING && param_control("wall-clock-ahead"))
		set_wall_clock_ahead();
	fact_wall_clock("realtime.ns");
	fact_clock("clock.at_start");
	if (param_get("nonce", nonce, sizeof(nonce)))
		fact("nonce", "%s", nonce);
	print_kernel_text();
	/* Where KHO's scratch areas are: what the next kernel boots from. */
	fact_of_lines("kho.scratch", "/sys/kernel/debug/kho/out/scratch_phys");
	fact_of_lines("kho.scratch_sizes", "/sys/kernel/debug/kho/out/scratch_len");
	fact_scratch_list();
	fact_cma_blocks();

	report_cpu_timers();

	luo_fd = luo_open();
	fact("liveupdate.device", "%s", luo_fd >= 0 ? "yes" : "no");
	if (luo_fd < 0)
		fact("liveupdate.errno", "%d", -luo_fd);
	else
		close(luo_fd);
}

/* What may have changed since print_common_facts(); just before the last line of a side. */
void print_last_facts(void)
{
	fact_wall_clock("realtime.ns_at_end");
	fact_clock("clock.at_end");
	refresh_counters();
	fact("pins.left", "%lld", pinned_pages());
	fact("areas.left", "%u", handover_areas());
	fact_from_file("kernel.taint_at_end", "/proc/sys/kernel/tainted");
	fact_from_file("kernel.nodes", "/sys/devices/system/node/online");
}

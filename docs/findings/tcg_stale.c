// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a store costs under QEMU's TCG in a page that once held code which is
 * never run again. A guest of its own, for -kernel; see
 * tcg-stale-translations.md for how it is built and run.
 */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

__attribute__((section(".multiboot"), used))
static const u32 multiboot[3] = { 0x1badb002, 0, -0x1badb002 };

#define PAGES	64
#define ROUNDS	64
#define TRIES	9
#define AREA	((u8 *)0x1000000)
#define PAGE(n)	(AREA + (n) * 4096)

static void out(u32 port, u8 value)
{
	asm volatile("outb %0, %w1" : : "a"(value), "d"(port));
}

static u64 ticks(void)
{
	u64 now;

	asm volatile("rdtsc" : "=A"(now));
	return now;
}

static void put(const char *text)
{
	while (*text)
		out(0x3f8, *text++);
}

static void put_number(u32 number)
{
	char digits[14] = "             ";
	int at = 12;

	do
		digits[at--] = '0' + number % 10;
	while (number /= 10);
	put(digits);
}

/* Host ticks of one store, in bytes of a page that are no code. */
static u32 store(void)
{
	u64 begin = ticks();

	for (u32 round = 0; round < ROUNDS; round++)
		for (u32 page = 0; page < PAGES; page++)
			*(volatile u32 *)(PAGE(page) + 4088) = round;
	return (u32)(ticks() - begin) / (ROUNDS * PAGES);
}

/* Host ticks that it takes to write all of a page. */
static u32 overwrite(void)
{
	u64 begin = ticks();

	for (u32 page = 0; page < PAGES; page++)
		for (u32 at = 0; at < 4096; at += 4)
			*(volatile u32 *)(PAGE(page) + at) = 0xc3c3c3c3;	/* ret */
	return (u32)(ticks() - begin) / PAGES;
}

/* Run so many pieces of code in each page, once: as many translations. */
static void run(u32 pieces)
{
	for (u32 page = 0; page < PAGES; page++)
		for (u32 piece = 0; piece < pieces; piece++)
			((void (*)(void))(PAGE(page) + piece * 16))();
}

static u32 min(u32 a, u32 b)
{
	return a < b ? a : b;
}

/* The least of some tries: what the host does beside us is not meant. */
static void measure(u32 pieces)
{
	u32 before = ~0u, whole = ~0u, after = ~0u;

	for (u32 n = 0; n < TRIES; n++) {
		run(pieces);
		before = min(before, store());
		whole = min(whole, overwrite());
		after = min(after, store());
	}
	put_number(pieces);
	put_number(before);
	put_number(whole);
	put_number(after);
	put("\n");
}

__attribute__((section(".start"), used, naked)) void start(void)
{
	asm("movl $0x800000, %esp; call guest; 1: hlt; jmp 1b");
}

__attribute__((used)) void guest(void)
{
	static const u8 pieces[] = { 0, 1, 4, 16, 64, 128 };

	overwrite();
	put("   TBs a page    a store the page over a store then (host ticks)\n");
	for (u32 n = 0; n < sizeof(pieces); n++)
		measure(pieces[n]);
	out(0xf4, 0);	/* isa-debug-exit */
}

// SPDX-License-Identifier: GPL-2.0-only
/* Data that depends on its place, and what to do where it does not. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tasks.h"

#define STEP 0x9e3779b97f4a7c15ull

/* The finalizer of splitmix64. */
u64 mix(u64 value)
{
	value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
	value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
	return value ^ (value >> 31);
}

void fill_pattern(u64 *words, size_t count, u64 seed)
{
	for (size_t i = 0; i < count; i++)
		words[i] = seed + i * STEP;
}

/* The first word that is not as fill_pattern() left it; @count when all are. */
size_t first_difference(const u64 *words, size_t count, u64 seed)
{
	size_t i = 0;

	while (i < count && words[i] == seed + i * STEP)
		i++;
	return i;
}

void fault(struct faults *faults, const char *format, ...)
{
	va_list args;

	if (!faults->count) {
		va_start(args, format);
		vsnprintf(faults->first, sizeof(faults->first), format, args);
		va_end(args);
	}
	faults->count++;
}

void sleep_ms(unsigned int ms)
{
	struct timespec time = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	nanosleep(&time, NULL);
}

/* To the console, which is where PID 1 reports as well. */
void die(const char *format, ...)
{
	va_list args;

	printf("died: ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf(": %m\n");
	fflush(stdout);
	exit(1);
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Keep the first kernel's text out of the memory of those that follow.
 *
 * An artefact of emulation, and none of kexec: QEMU's TCG keeps what it has
 * translated of a kernel that is no longer there. Where the next kernel has
 * data in such a page, each of its stores takes the slow way of
 * self-modifying code, and an early boot may take three times as long
 * (docs/findings/tcg-stale-translations.md). The host asks for it with
 * stage.stale_text=avoid where the CPU is an emulated one.
 */
#include <stdio.h>
#include <string.h>

#include "workload.h"

#define PAGE 4096ull

static bool asked_for(void)
{
	char value[16];

	if (!param_get("stale_text", value, sizeof(value)))
		return false;
	must_be(!strcmp(value, "avoid") || !strcmp(value, "keep"), "stage.stale_text=%s", value);
	return !strcmp(value, "avoid");
}

/*
 * The text of a kernel that came by kexec lies in KHO's scratch memory. That is
 * memory to the next kernel whatever memmap= says (kho_populate()), and its
 * direct mapping warns of the contradiction (set_pmd_init()). So it is only the
 * kernel that was booted first whose text can be kept out; it stays out of the
 * memory of all that follow, because nothing ever drops the translations.
 */
static bool came_by_kexec(void)
{
	char done[8];

	return param_side() == SIDE_INCOMING || param_get("uncounted", done, sizeof(done));
}

/* First and last byte of the kernel's text; false when the kernel does not tell. */
static bool kernel_text(u64 *first, u64 *last)
{
	char line[256];
	bool found = false;
	FILE *iomem;

	iomem = fopen("/proc/iomem", "re");
	if (!iomem)
		return false;
	while (!found && fgets(line, sizeof(line), iomem))
		found = strstr(line, " : Kernel code\n") &&
			sscanf(line, "%llx-%llx", first, last) == 2;
	fclose(iomem);
	/* Without CAP_SYS_ADMIN both are zero. */
	return found && *first < *last;
}

/*
 * What the next kernel's command line needs for it, with a space before it;
 * "" when there is nothing to be said. Whole pages: what lies before _text and
 * behind _etext in them is never given back to the page allocator.
 */
void stale_text_words(char *words, size_t size)
{
	u64 first, last;

	words[0] = '\0';
	if (!asked_for() || came_by_kexec() || !kernel_text(&first, &last))
		return;
	first &= ~(PAGE - 1);
	last |= PAGE - 1;
	snprintf(words, size, " memmap=0x%llx$0x%llx", last + 1 - first, first);
}

/* Once on each side: a fact may be given only once, an image loaded more often. */
void print_kernel_text(void)
{
	u64 first, last;

	if (kernel_text(&first, &last))
		fact("kernel.text", "0x%llx-0x%llx", first, last);
	else
		fact("kernel.text", "unknown: no address of Kernel code in /proc/iomem");
}

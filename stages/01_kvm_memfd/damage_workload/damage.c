// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memfds in two sessions, for a sweep of damaged records: the host changes what
 * is handed over about them after this program has let its kernel go, and looks
 * at what the next kernel makes of it (common/suites/damage).
 */
#include <fcntl.h>
#include <unistd.h>

#include "handed_files.h"

/* The second file's list of folios takes more than one page. */
static struct handed_file files[] = {
	{ .session = "first", .token = 1, .pages = 8, .position = 0x1234, .seals = F_SEAL_GROW },
	{ .session = "first", .token = 2, .pages = 600, .position = 4096 },
	{ .session = "second", .token = 1, .pages = 3, .position = 77 },
	{},
};

static int before_kexec(void)
{
	make_files(files);
	hand_over(files, luo_must_open());
	must(kexec_load_incoming());
	await("reboot");
	return kexec_reboot();
}

static int after_kexec(void)
{
	int luo_fd = luo_open();

	fact("luo", "%d", luo_fd < 0 ? luo_fd : 0);
	take_over(files, luo_fd);
	say_contents(files, "retrieved");
	finish_sessions(files);
	say_contents(files, "finished");
	let_go_and_use_memory(files);
	return 0;
}

const struct stage_ops stage = {
	.before_kexec = before_kexec,
	.after_kexec = after_kexec,
};

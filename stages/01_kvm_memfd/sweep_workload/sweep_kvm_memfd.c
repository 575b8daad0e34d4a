// SPDX-License-Identifier: GPL-2.0-only
/*
 * Each call of a memfd's life in a session: first in the outgoing kernel, then,
 * with a session for each point, in the incoming one.
 */
#include "lives.h"

/* Sessions for a call of the incoming kernel; a kind whose sessions run out is told. */
static const unsigned int sessions[SWEEP_KINDS] = {
	[FAIL_COPY] = 10,
	[FAIL_SLAB] = 45,
	[FAIL_PAGE] = 45,
};

static void preserve_sessions(int luo_fd)
{
	unsigned int only = sweep_only_point();

	for (const struct call *call = incoming_calls; call->name; call++) {
		for (enum fail_kind kind = 0; kind < SWEEP_KINDS; kind++) {
			if (sweep_leaves_out(call->name, kind))
				continue;
			preserve_for_incoming(luo_fd, call->name, kind, 0);
			if (only)
				preserve_for_incoming(luo_fd, call->name, kind, only);
			for (unsigned int n = 1; !only && n < sessions[kind]; n++)
				preserve_for_incoming(luo_fd, call->name, kind, n);
		}
	}
}

static int before_kexec(void)
{
	int luo_fd = luo_must_open();

	say_kho_tree();
	sweep_begin();
	sweep_calls(outgoing_calls, NULL, luo_fd);
	report_leaks();
	preserve_sessions(luo_fd);
	must(kexec_load_incoming());
	return sweep_reboot(luo_fd);
}

/* Of the sessions that the outgoing kernel's sweep has left; nothing fails here. */
static void look_at_kept(enum fail_kind kind, int luo_fd)
{
	struct point point;

	for (unsigned int n = 0;; n = sweep_only_point() ?: n + 1) {
		point_begin(&point, "arrived", kind, n);
		if (take_kept(&point, luo_fd) == -ENOENT)
			break;
		point_say(&point);
	}
}

static int after_kexec(void)
{
	int luo_fd = luo_must_open();

	sweep_begin();
	for (enum fail_kind kind = 0; kind < SWEEP_KINDS; kind++)
		look_at_kept(kind, luo_fd);
	sweep_calls(incoming_calls, sessions, luo_fd);
	return 0;
}

const struct stage_ops stage = {
	.before_kexec = before_kexec,
	.after_kexec = after_kexec,
};

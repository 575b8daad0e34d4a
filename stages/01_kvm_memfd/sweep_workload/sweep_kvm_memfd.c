// SPDX-License-Identifier: GPL-2.0-only
/*
 * Each call of a session's life, cut at each allocation and each copy from and
 * to userspace in it: first in the outgoing kernel, then, with a session for
 * each point, in the incoming one. Judged by the host (common/suites/sweep).
 *
 * stage.point=CALL:KIND:N has that point alone.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "point.h"

/* Of a call of the outgoing kernel, which has a new session for each point. */
#define MOST_POINTS 2000
/* A call is through when that many times nothing was left in it that could fail. */
#define THROUGH 3
/* Not one of the tables: a reboot that goes through does not come back. */
#define REBOOT "reboot"

/* Sessions for a call of the incoming kernel; a kind whose sessions run out is told. */
static const unsigned int sessions[] = {
	[FAIL_COPY] = 10,
	[FAIL_SLAB] = 45,
	[FAIL_PAGE] = 45,
};

struct chosen {
	bool one;
	char call[32], kind[8];
	unsigned int n;
};

static const struct chosen *chosen(void)
{
	static struct chosen chosen;
	char value[64];

	if (!chosen.one && param_get("point", value, sizeof(value))) {
		must_be(sscanf(value, "%31[a-z_]:%7[a-z]:%u", chosen.call, chosen.kind,
			       &chosen.n) == 3, "stage.point=%s", value);
		chosen.one = true;
	}
	return &chosen;
}

static bool left_out(const char *call, enum fail_kind kind)
{
	return chosen()->one && (strcmp(call, chosen()->call) ||
				 strcmp(fail_kind_names[kind], chosen()->kind));
}

static struct point try_point(const struct call *call, enum fail_kind kind, unsigned int n,
			      int luo_fd)
{
	struct point point;

	point_begin(&point, call->name, kind, n);
	call->live(&point, luo_fd);
	point_say(&point);
	return point;
}

/* Until the call goes through with nothing having failed in it. */
static void sweep_all(const struct call *call, enum fail_kind kind, int luo_fd)
{
	unsigned int most = param_side() == SIDE_OUTGOING ? MOST_POINTS : sessions[kind];
	unsigned int through = 0, n;
	char key[64];

	snprintf(key, sizeof(key), "swept.%s.%s", call->name, fail_kind_names[kind]);
	for (n = 1; n < most && through < THROUGH; n++)
		through = try_point(call, kind, n, luo_fd).left ? through + 1 : 0;
	if (through == THROUGH)
		fact(key, "%u", n - 1 - THROUGH);
	else
		fact(key, "more than %u", n - 1);
}

static void sweep(const struct call *calls, int luo_fd)
{
	for (const struct call *call = calls; call->name; call++) {
		for (enum fail_kind kind = 0; kind < ARRAY_SIZE(sessions); kind++) {
			if (left_out(call->name, kind))
				continue;
			fail_nth_kind(kind);
			/* What the others are compared with. */
			try_point(call, kind, 0, luo_fd);
			if (chosen()->one)
				try_point(call, kind, chosen()->n, luo_fd);
			else
				sweep_all(call, kind, luo_fd);
		}
	}
	point_mark("end");
}

static void preserve_sessions(int luo_fd)
{
	for (const struct call *call = incoming_calls; call->name; call++) {
		for (enum fail_kind kind = 0; kind < ARRAY_SIZE(sessions); kind++) {
			if (left_out(call->name, kind))
				continue;
			preserve_for_incoming(luo_fd, call->name, kind, 0);
			if (chosen()->one)
				preserve_for_incoming(luo_fd, call->name, kind, chosen()->n);
			for (unsigned int n = 1; !chosen()->one && n < sessions[kind]; n++)
				preserve_for_incoming(luo_fd, call->name, kind, n);
		}
	}
}

/* The first look takes memory of its own. */
static void warm_up(void)
{
	struct point point;

	fail_nth_open();
	point_begin(&point, "warm_up", FAIL_ANY, 0);
	point_begin(&point, "warm_up", FAIL_ANY, 0);
	point_say(&point);
}

static int close_session(int session)
{
	return session < 0 ? session : sys(close(session));
}

/*
 * Until the reboot goes through: with an error LUO gives everything back, and
 * the session is as good as before. Returns only where nothing failed in it.
 */
static int leave(int luo_fd)
{
	struct point point;
	unsigned int n = 1;

	if (chosen()->one)
		n = left_out(REBOOT, FAIL_ANY) ? 0 : chosen()->n;
	fail_nth_kind(FAIL_ANY);
	print_last_facts();
	do {
		point_begin(&point, REBOOT, FAIL_ANY, n++);
		point_arm(&point);
		dialogue_drain();
		point_cut(&point, kexec_start());
		point_step(&point, "create", close_session(luo_create_session(luo_fd, REBOOT)));
		point_say(&point);
	} while (!point.left);
	return point.ret;
}

static int before_kexec(void)
{
	int luo_fd = luo_must_open();

	say_kho_tree();
	warm_up();
	sweep(outgoing_calls, luo_fd);
	report_leaks();
	preserve_sessions(luo_fd);
	must(kexec_load_incoming());
	return leave(luo_fd);
}

/* Of the sessions that the outgoing kernel's sweep has left; nothing fails here. */
static void look_at_kept(enum fail_kind kind, int luo_fd)
{
	struct point point;

	for (unsigned int n = 0;; n = chosen()->one ? chosen()->n : n + 1) {
		point_begin(&point, "arrived", kind, n);
		if (take_kept(&point, luo_fd) == -ENOENT)
			break;
		point_say(&point);
	}
}

static int after_kexec(void)
{
	int luo_fd = luo_must_open();

	warm_up();
	for (enum fail_kind kind = 0; kind < ARRAY_SIZE(sessions); kind++)
		look_at_kept(kind, luo_fd);
	sweep(incoming_calls, luo_fd);
	return 0;
}

const struct stage_ops stage = {
	.before_kexec = before_kexec,
	.after_kexec = after_kexec,
};

// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sweep.h"

/* Of a call that has a new session for each point. */
#define MOST_POINTS 2000
/* A call is through when that many times nothing was left in it that could fail. */
#define THROUGH 3
#define REBOOT "reboot"

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

unsigned int sweep_only_point(void)
{
	return chosen()->one ? chosen()->n : 0;
}

bool sweep_leaves_out(const char *call, enum fail_kind kind)
{
	return chosen()->one && (strcmp(call, chosen()->call) ||
				 strcmp(fail_kind_names[kind], chosen()->kind));
}

/* The first look takes memory of its own. */
void sweep_begin(void)
{
	struct point point;

	fail_nth_open();
	point_begin(&point, "warm_up", FAIL_ANY, 0);
	point_begin(&point, "warm_up", FAIL_ANY, 0);
	point_say(&point);
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

/* Nothing is left in that call that could fail, beyond its first @points; or more than that is. */
static void say_swept(const char *call, enum fail_kind kind, unsigned int points, bool through)
{
	char key[64];

	snprintf(key, sizeof(key), "swept.%s.%s", call, fail_kind_names[kind]);
	fact(key, "%s%u", through ? "" : "more than ", points);
}

/* Until the call goes through with nothing having failed in it. */
static void sweep_all(const struct call *call, enum fail_kind kind, unsigned int most, int luo_fd)
{
	unsigned int through = 0, n;

	for (n = 1; n < most && through < THROUGH; n++)
		through = try_point(call, kind, n, luo_fd).left ? through + 1 : 0;
	if (through == THROUGH)
		say_swept(call->name, kind, n - 1 - THROUGH, true);
	else
		say_swept(call->name, kind, n - 1, false);
}

void sweep_calls(const struct call *calls, const unsigned int *most, int luo_fd)
{
	for (const struct call *call = calls; call->name; call++) {
		for (enum fail_kind kind = 0; kind < SWEEP_KINDS; kind++) {
			if (sweep_leaves_out(call->name, kind))
				continue;
			fail_nth_kind(kind);
			/* What the others are compared with. */
			try_point(call, kind, 0, luo_fd);
			if (sweep_only_point())
				try_point(call, kind, sweep_only_point(), luo_fd);
			else
				sweep_all(call, kind, most ? most[kind] : MOST_POINTS, luo_fd);
		}
	}
	point_mark("end");
}

/* What the call gave; where something in it failed, that is a point. */
static int try_last_call(const struct last_call *call, enum fail_kind kind, void *object,
			 struct point *point, unsigned int n)
{
	int ret;

	point_begin(point, call->name, kind, n);
	point_arm(point);
	ret = point_cut(point, call->make(object));
	if (ret < 0)
		call->look(point, object);
	if (ret < 0 || !point->left)
		point_say(point);
	return ret;
}

/* What the call gives in the end: 0, a descriptor, or -errno where nothing in it was made to fail. */
int sweep_last_call(struct last_call *call, enum fail_kind kind, void *object)
{
	unsigned int only = sweep_only_point();
	struct point point;
	int ret;

	if (sweep_leaves_out(call->name, kind) || call->through[kind])
		return call->make(object);
	fail_nth_kind(kind);
	do {
		ret = try_last_call(call, kind, object, &point, only ?: call->tried[kind] + 1);
		if (!point.left)
			call->tried[kind]++;
	} while (ret < 0 && !point.left && !only);
	call->through[kind] = only || (ret >= 0 && point.left);
	point_mark("end");
	return ret < 0 && !point.left ? call->make(object) : ret;
}

void sweep_say_last_call(const struct last_call *call)
{
	for (enum fail_kind kind = 0; kind < SWEEP_KINDS; kind++)
		if (call->through[kind] || call->tried[kind])
			say_swept(call->name, kind, call->tried[kind], call->through[kind]);
}

/*
 * Until the reboot goes through: with an error LUO gives everything back, and
 * the session is as good as before. Returns only where nothing failed in it.
 */
int sweep_reboot(int luo_fd)
{
	struct point point;
	unsigned int n = 1;
	int session;

	if (sweep_only_point())
		n = sweep_leaves_out(REBOOT, FAIL_ANY) ? 0 : sweep_only_point();
	fail_nth_kind(FAIL_ANY);
	print_last_facts();
	do {
		point_begin(&point, REBOOT, FAIL_ANY, n++);
		point_arm(&point);
		dialogue_drain();
		point_cut(&point, kexec_start());
		session = luo_create_session(luo_fd, REBOOT);
		point_step(&point, "create", session < 0 ? session : sys(close(session)));
		point_say(&point);
	} while (!point.left);
	return point.ret;
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Each racer creates a session, preserves a file in it and closes it, again and
 * again, until the kexec; the second does not close but dies, and the third
 * preserves file after file, so that it is nearly always in the middle of that.
 * Before each step it writes into a page that is preserved itself what it is
 * about to do.
 * Once reboot() has serialised the sessions no step may succeed any more
 * (luo_session_serialize(), Linux 7.3, keeps its lock), so what arrives is what
 * the last line says: the step before it, or that one, and no other round.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pattern.h"
#include "racers.h"

#define RACERS 3
#define DYING 1
#define FILLING 2
/* More than it comes to before the kexec. */
#define FILES_MAX 400
#define LOG_SESSION "race-log"
#define TOKEN 1
/* So many rounds, or files, each has to have made before reboot() is called. */
#define ROUNDS 1
#define FILES 4

enum step {
	CREATE,
	PRESERVE,
	END,
};

struct racer {
	u64 round;
	u64 step;
	/* of the round, from 1, while its step is PRESERVE */
	u64 file;
	u64 go;
};

static struct racer *racers;

static const char * const step_names[] = { "create", "preserve", "end" };

static void name_of(char *name, size_t size, unsigned int racer, u64 round)
{
	snprintf(name, size, "race-%u-%llu", racer, round);
}

static void note(struct racer *log, u64 round, enum step step)
{
	WRITE_ONCE(log->round, round);
	WRITE_ONCE(log->step, step);
}

static u64 files_of(unsigned int racer)
{
	return racer == FILLING ? FILES_MAX : 1;
}

static u64 content_of(u64 nonce, unsigned int racer, u64 round, u64 token)
{
	return pattern_word(nonce + racer, round * FILES_MAX + token);
}

/* A file with its content, or an error. */
static int make_file(u64 word)
{
	int file = sys(memfd_create("race", MFD_CLOEXEC));

	if (file >= 0 && pwrite(file, &word, sizeof(word), 0) != sizeof(word))
		return -EIO;
	return file;
}

/* 0, or what went wrong. */
static int one_round(int luo_fd, struct racer *log, unsigned int racer, u64 round, u64 nonce)
{
	char name[64];
	int session;

	name_of(name, sizeof(name), racer, round);
	note(log, round, CREATE);
	session = luo_create_session(luo_fd, name);
	if (session < 0)
		return session;
	for (u64 token = 1; token <= files_of(racer); token++) {
		int file = make_file(content_of(nonce, racer, round, token)), ret;

		if (file < 0)
			return file;
		WRITE_ONCE(log->file, token);
		note(log, round, PRESERVE);
		ret = luo_preserve_fd(session, file, token);
		if (ret < 0)
			return ret;
		close(file);
	}
	note(log, round, END);
	close(session);
	return 0;
}

/* As one_round(), by a process of its own that leaves it to its death to close. */
static int dying_round(int luo_fd, struct racer *log, unsigned int racer, u64 round, u64 nonce)
{
	int status = 0;
	pid_t pid = sys(fork());

	if (pid < 0)
		return pid;
	if (!pid) {
		int file = make_file(content_of(nonce, racer, round, TOKEN)), session;
		char name[64];

		name_of(name, sizeof(name), racer, round);
		note(log, round, CREATE);
		session = luo_create_session(luo_fd, name);
		WRITE_ONCE(log->file, TOKEN);
		note(log, round, PRESERVE);
		if (file < 0 || session < 0 || luo_preserve_fd(session, file, TOKEN) < 0)
			_exit(1);
		note(log, round, END);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		return -ECHILD;
	return 0;
}

static void __noreturn race(int luo_fd, struct racer *log, unsigned int racer, u64 nonce)
{
	while (!READ_ONCE(log->go))
		poll_pause();
	for (u64 round = 1;; round++) {
		int ret = racer == DYING ? dying_round(luo_fd, log, racer, round, nonce) :
			  one_round(luo_fd, log, racer, round, nonce);

		if (ret < 0)
			_exit(1);
		/* A step more than was made is what the next kernel is told. */
		if (round == ROUNDS && param_control("race-lost")) {
			note(log, round + 1, PRESERVE);
			_exit(0);
		}
	}
}

/* They wait to be let go: what they take to come up is no part of a pause. */
void racers_start(int luo_fd, u64 nonce)
{
	int session = must(luo_create_session(luo_fd, LOG_SESSION));
	int file = must(sys(memfd_create("race-log", MFD_CLOEXEC)));

	must(sys(ftruncate(file, PAGE_SIZE)));
	racers = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	must_be(racers != MAP_FAILED, "%s", errno_name(-errno));
	must(luo_preserve_fd(session, file, TOKEN));
	for (unsigned int racer = 0; racer < RACERS; racer++)
		if (!must(sys(fork())))
			race(luo_fd, &racers[racer], racer, nonce);
}

static bool is_at_it(const struct racer *log, unsigned int racer)
{
	return READ_ONCE(log->round) > ROUNDS || (racer == FILLING && READ_ONCE(log->file) > FILES);
}

/*
 * Returns when all of them are at it. They take both CPUs, and QEMU's go before
 * the host's other processes, so it is the last thing before reboot(): the host
 * took up to 3 s to say its next word. PID 1 has none when the holder was killed.
 */
void racers_go(void)
{
	struct deadline deadline = deadline_in_ms(30000);

	if (!racers)
		return;
	for (unsigned int racer = 0; racer < RACERS; racer++)
		WRITE_ONCE(racers[racer].go, 1);
	for (unsigned int racer = 0; racer < RACERS; racer++)
		while (!is_at_it(&racers[racer], racer)) {
			must_be(!deadline_passed(deadline), "racer %u is in round %llu", racer,
				READ_ONCE(racers[racer].round));
			poll_pause();
		}
	fact_counter("racing", read_counter());
}

/* How many of a session's files are there, and how many of them have their content. */
static void count_files(int session, const struct racer *log, unsigned int racer, u64 round,
			u64 nonce, u64 *found, u64 *right)
{
	for (u64 token = 1; token <= log->file + 1; token++) {
		int file = luo_retrieve_fd(session, token);
		u64 word = 0;

		if (file < 0)
			continue;
		++*found;
		if (pread(file, &word, sizeof(word), 0) == sizeof(word))
			*right += word == content_of(nonce, racer, round, token);
		close(file);
	}
}

/* What came of one racer: which rounds, and whether the files are there and right. */
static void say_racer(int luo_fd, const struct racer *log, unsigned int racer, u64 nonce)
{
	unsigned int sessions = 0;
	u64 files = 0, right = 0;
	char name[64], key[64];
	long long found = -1;

	for (u64 round = 1; round <= log->round + 1; round++) {
		int session;

		name_of(name, sizeof(name), racer, round);
		session = luo_retrieve_session(luo_fd, name);
		if (session < 0)
			continue;
		sessions++;
		found = round;
		count_files(session, log, racer, round, nonce, &files, &right);
		close(session);
	}
	snprintf(key, sizeof(key), "race.%u", racer);
	fact(key, "round=%llu step=%s file=%llu of=%llu sessions=%u found=%lld files=%llu right=%llu",
	     log->round, log->step < ARRAY_SIZE(step_names) ? step_names[log->step] : "?",
	     log->file, files_of(racer), sessions, found, files, right);
}

void racers_incoming(int luo_fd, u64 nonce)
{
	int session = luo_retrieve_session(luo_fd, LOG_SESSION);
	struct racer log[RACERS] = {};
	int file;

	if (session < 0)
		return;
	file = must(luo_retrieve_fd(session, TOKEN));
	must(sys(pread(file, log, sizeof(log), 0)));
	for (unsigned int racer = 0; racer < RACERS; racer++)
		say_racer(luo_fd, &log[racer], racer, nonce);
	close(file);
	close(session);
}

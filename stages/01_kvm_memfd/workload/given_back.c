// SPDX-License-Identifier: GPL-2.0-only
/*
 * One file after the other is put into a session, and its memory looked for at
 * each step (ledger.c): an abort, a refusal, a killed holder; FINISH and close,
 * FINISH of what nobody retrieved, close without FINISH, a retrieve that fails.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "given_back.h"
#include "guest_ram.h"
#include "ledger.h"
#include "memfd_look.h"
#include "rules.h"

#define TOKEN 1
#define OTHER_TOKEN 2
/* One page more than memfd_luo_preserve() takes: UINT_MAX pages. */
#define TOO_LARGE ((1ull << 32) * 4096)
/* Of which half may fail: more than a CPU accounts for by itself. */
#define FAILED_FILE (4ull << 20)
/* Of which each may lose less than MemAvailable goes up and down. */
#define LOADS 2

/* Sessions with one file, by what becomes of it in the next kernel. */
#define FINISHED "memory-finished"
#define UNRETRIEVED "memory-unretrieved"
#define UNRETRIEVED_LARGE "memory-unretrieved-large"
#define UNFINISHED "memory-unfinished"
#define FAILED "memory-failed"

/*
 * Lets half of a file of FAILED_FILE be taken, so that what fails has something
 * to undo: every page of a memfd is accounted for when it is added (mm/shmem.c,
 * shmem_inode_acct_blocks()), also by a retrieve. A CPU counts up to a batch of
 * pages by itself (mm/mm_init.c, mm_compute_batch(): 1/256 of its share of
 * memory); where a batch is no less than that half, nothing can be taken at all.
 */
static void limit_memory(void)
{
	u64 half_kb = FAILED_FILE >> 11;
	u64 batch_kb = meminfo_kb("MemTotal") / sysconf(_SC_NPROCESSORS_ONLN) / 256;
	char limit[32];

	/* What is kept back for whoever has to mend things is a part of the process' own size. */
	write_to("/proc/sys/vm/user_reserve_kbytes", "0");
	snprintf(limit, sizeof(limit), "%llu",
		 batch_kb < half_kb ? meminfo_kb("Committed_AS") + half_kb : 4);
	write_to("/proc/sys/vm/overcommit_kbytes", limit);
	write_to("/proc/sys/vm/overcommit_memory", "2");
}

static void unlimit_memory(void)
{
	write_to("/proc/sys/vm/overcommit_memory", "0");
	write_to("/proc/sys/vm/overcommit_kbytes", "0");
}

static int open_again(int fd, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return must(sys(open(path, flags | O_CLOEXEC)));
}

/* All ways to preserve what is preserved; none may leave a trace. */
static void refuse(int luo_fd, int session, int file)
{
	int second = must(luo_create_session(luo_fd, "memory-second"));
	int again = open_again(file, O_RDWR), copy = must(sys(dup(file)));

	if (param_control("preserved-elsewhere")) {
		fact("preserved_elsewhere", "yes");
		close(again);
		again = ledger_file(4096);
	}

	rule("preserve_copy_of_fd", -EBUSY, luo_preserve_fd(session, copy, OTHER_TOKEN));
	rule("preserve_second_open", -EBUSY, luo_preserve_fd(session, again, OTHER_TOKEN));
	rule("preserve_second_open_elsewhere", -EBUSY, luo_preserve_fd(second, again, TOKEN));
	close(second);
	close(again);
	close(copy);
}

/* Refused while memfd_luo_preserve() is at it; the file is as it was. */
static void refuse_late(int luo_fd)
{
	int session = must(luo_create_session(luo_fd, "memory-refused"));
	int file = must(sys(memfd_create("refused", MFD_CLOEXEC)));

	must(sys(ftruncate(file, TOO_LARGE)));
	rule("preserve_too_large", -EFBIG, luo_preserve_fd(session, file, TOKEN));
	rule("resize_after_refusal", 0, sys(ftruncate(file, FAILED_FILE)));
	/* Holes are filled by preserve; here there is room for half of them. */
	limit_memory();
	rule("preserve_without_memory", -ENOSPC, luo_preserve_fd(session, file, TOKEN));
	unlimit_memory();
	rule("empty_after_refusal", 0, sys(ftruncate(file, 0)));
	rule("preserve_after_refusal", 0, luo_preserve_fd(session, file, TOKEN));
	close(session);
	close(file);
	keep_memory();
}

/* What was read of an image, and what was made of it. */
static void refuse_to_load(void)
{
	int ret = 0;

	for (unsigned int i = 0; i < LOADS; i++) {
		ret = kexec_load_no_kernel();
		must(kexec_load_incoming());
		must(kexec_unload());
	}
	rule("load_no_kernel", -ENOEXEC, ret);
}

/* The holder of a session dies, and nobody closes anything. */
static void kill_holder(int luo_fd, int file)
{
	int status, ready[2];
	pid_t holder;
	char byte;

	/* A holder that is refused ends at once: the counters tell then that it held nothing. */
	must(sys(pipe2(ready, O_CLOEXEC)));
	holder = must(sys(fork()));
	if (!holder) {
		int session = luo_create_session(luo_fd, "memory-killed");

		if (session < 0 || luo_preserve_fd(session, file, TOKEN) < 0)
			_exit(1);
		if (write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	must(sys(read(ready[0], &byte, 1)));
	close(ready[0]);
	ledger("held");
	must(sys(kill(holder, SIGKILL)));
	must(sys(waitpid(holder, &status, 0)));
	keep_memory();
}

static void keep_for_incoming(int luo_fd, const char *name, u64 size)
{
	int file = ledger_file(size);

	must(luo_preserve_fd(must(luo_create_session(luo_fd, name)), file, TOKEN));
	close(file);
}

static void keep_large_for_incoming(int luo_fd)
{
	int file = ledger_file(LEDGER_FILE);

	ram_collapse(file, LEDGER_FILE, 0);
	must(luo_preserve_fd(must(luo_create_session(luo_fd, UNRETRIEVED_LARGE)), file, TOKEN));
	close(file);
}

/* What is registered with KHO is a folio, whatever its size. */
static void abort_large_folio(int luo_fd)
{
	int file = ledger_file(LEDGER_FILE), session;

	ram_collapse(file, LEDGER_FILE, 0);
	ledger_for_host("large");
	session = must(luo_create_session(luo_fd, "memory-large"));
	must(luo_preserve_fd(session, file, TOKEN));
	close(session);
	ledger_for_host("large-aborted");
	close(file);
}

void given_back_outgoing(int luo_fd)
{
	int session, file;

	say_kho_tree();
	ledger_enter_cgroup();
	ledger("begun");
	refuse_to_load();
	ledger("unloaded");
	file = ledger_file(LEDGER_FILE);
	ledger_for_host("made");
	session = must(luo_create_session(luo_fd, "memory-aborted"));
	must(luo_preserve_fd(session, file, TOKEN));
	ledger("preserved");
	refuse(luo_fd, session, file);
	ledger("refused");
	close(session);
	keep_memory();
	ledger_for_host("aborted");
	refuse_late(luo_fd);
	ledger_for_host("refused-late");
	kill_holder(luo_fd, file);
	ledger_for_host("killed");
	close(file);
	keep_memory();
	ledger("closed");
	abort_large_folio(luo_fd);

	keep_for_incoming(luo_fd, FINISHED, LEDGER_FILE);
	keep_for_incoming(luo_fd, UNRETRIEVED, LEDGER_FILE);
	keep_large_for_incoming(luo_fd);
	keep_for_incoming(luo_fd, UNFINISHED, LEDGER_FILE);
	keep_for_incoming(luo_fd, FAILED, FAILED_FILE);
}

static void finish_and_close(int luo_fd)
{
	int session = must(luo_retrieve_session(luo_fd, FINISHED));
	int file = must(luo_retrieve_fd(session, TOKEN));

	ledger("retrieved");
	rule("finish_retrieved", 0, luo_finish(session));
	ledger("finished");
	close(file);
	close(session);
	keep_memory();
	ledger("released");
}

/* Room for half of the file: the retrieve has half of it to undo and half to give back. */
static void fail_to_retrieve(int luo_fd)
{
	int session = must(luo_retrieve_session(luo_fd, FAILED));

	if (!param_control("retrieve-succeeds"))
		limit_memory();
	fact("failed.retrieve", "%d", luo_retrieve_fd(session, TOKEN));
	unlimit_memory();
	fact("failed.again", "%d", luo_retrieve_fd(session, TOKEN));
	fact("failed.finish", "%d", luo_finish(session));
	close(session);
	keep_memory();
	ledger("failed");
}

static const char * const incoming_rules[] = {
	"finish_retrieved", "finish_unretrieved", "unretrieved_session_gone",
	"finish_unretrieved_large", "close_unfinished",
	"unfinished_session_gone",
};

void given_back_incoming(int luo_fd)
{
	int session;

	ledger_enter_cgroup();
	/* Control holder-killed carries nothing over. */
	session = luo_retrieve_session(luo_fd, UNRETRIEVED);
	if (session < 0) {
		skip_all(incoming_rules, ARRAY_SIZE(incoming_rules));
		return;
	}
	ledger("arrived");
	finish_and_close(luo_fd);

	rule("finish_unretrieved", 0, luo_finish(session));
	close(session);
	keep_memory();
	ledger("discarded");
	rule("unretrieved_session_gone", -ENOENT,
	     closed(luo_retrieve_session(luo_fd, UNRETRIEVED)));

	session = must(luo_retrieve_session(luo_fd, UNRETRIEVED_LARGE));
	rule("finish_unretrieved_large", 0, luo_finish(session));
	close(session);
	keep_memory();
	ledger("discarded-large");

	session = must(luo_retrieve_session(luo_fd, UNFINISHED));
	rule("close_unfinished", 0, closed(session));
	keep_memory();
	ledger("dropped");
	rule("unfinished_session_gone", -ENOENT,
	     closed(luo_retrieve_session(luo_fd, UNFINISHED)));
	fail_to_retrieve(luo_fd);
}

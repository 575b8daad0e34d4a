/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What every stage's workload shares: PID 1, the dialogue with the host, the
 * LUO and kexec system calls. Functions that return int return -errno; only
 * must() and bail() end the program.
 */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "types.h"

enum side {
	SIDE_OUTGOING,
	SIDE_INCOMING,
};

/**
 * struct stage_ops - what a stage gives to PID 1; defined once, as &stage
 * @before_kexec: runs in the outgoing kernel, in the holder process. Ends in
 *	kexec_reboot(); a return of 0 is a side that ended early, on purpose.
 * @after_kexec: runs in the incoming kernel, in the holder process.
 * @before_next_kexec: runs in the holder after after_kexec(), in a chain of
 *	updates: from here on this kernel is the outgoing one. Ends as
 *	before_kexec() does. May be NULL for a stage that goes through one update.
 * @after_holder_kill: runs in PID 1 after holder_request_kill() was served.
 *	May be NULL for a stage that never asks for it.
 * @helper: what the program is where another process, not the kernel, starts it.
 *	May be NULL for a stage that asks nobody to.
 * @at_reboot: runs when the host has let this kernel go: starts what is to go
 *	on while reboot() is at work. May be NULL.
 * @tests: number of KTAP results of each side, by enum side.
 */
struct stage_ops {
	int (*before_kexec)(void);
	int (*after_kexec)(void);
	int (*before_next_kexec)(void);
	int (*after_holder_kill)(void);
	int (*helper)(void);
	void (*at_reboot)(void);
	unsigned int tests[2];
};

extern const struct stage_ops stage;

/* init.c */
void __noreturn holder_request_kill(void);

/* params.c */
bool param_get(const char *name, char *value, size_t size);
u64 param_u64(const char *name, u64 otherwise);
u64 param_nonce(void);
bool param_control(const char *name);
bool param_control_kind(const char *kind);
bool param_lacks_something(void);
enum side param_side(void);
u64 param_updates_done(void);

/* dialogue.c */
int dialogue_open(const char *tty);
void __printf(2, 3) fact(const char *key, const char *format, ...);
void fact_counter(const char *name, u64 tsc);
void ktap_plan(unsigned int tests);
bool ktap_ok(bool ok, const char *name);
void ktap_skip(const char *name, const char *reason);
void ktap_skip_rest(const char *reason);
void dialogue_line(const char *line);
void dialogue_drain(void);
bool dialogue_read(char *byte);

/* rendezvous.c */
void await(const char *name);
void await_within(const char *name, u64 ms);

/* end.c */
void __noreturn power_off(void);
void __noreturn __printf(1, 2) dialogue_bail(const char *format, ...);

/* facts.c */
void print_common_facts(enum side side);
void print_last_facts(void);
void write_to(const char *path, const char *text);
u64 meminfo_kb(const char *field);
u64 own_kb(const char *field);
u64 available_kb(void);
/* Bytes of a small file, at most @size, or -errno. */
ssize_t read_file(const char *path, void *buffer, size_t size);
/* The same, and a terminating zero: "" where there is no such file. */
ssize_t read_text(const char *path, char *text, size_t size);

/* arch/MACHINE/core/counter_khz.c */
u64 counter_khz(void);
/* arch/MACHINE/core/kho_list.c: of KHO's list of scratch areas, as it was handed over; 0 for none */
u64 kho_list_address(void);

/* debug.c */
void report_leaks(void);

/* luo.c */
int luo_open(void);
int luo_must_open(void);
int luo_create_session(int luo_fd, const char *name);
int luo_retrieve_session(int luo_fd, const char *name);
int luo_preserve_fd(int session_fd, int fd, u64 token);
int luo_retrieve_fd(int session_fd, u64 token);
int ioctl_read_only(int fd, unsigned long request, const void *arg, size_t size);
int luo_finish(int session_fd);
void say_kho_tree(void);

/* kexec.c */
int kexec_load_incoming(void);
int kexec_load_uncounted(void);
int kexec_load_no_kernel(void);
int kexec_unload(void);
int kexec_load_without_kho(void);
int kexec_unload_without_kho(void);
int kexec_start(void);
int kexec_reboot(void);

/* stale_text.c */
void stale_text_words(char *words, size_t size);
void print_kernel_text(void);

/* leave.c */
int leave_kernel(void);
int leave_for_incoming(void);

/* page_frames.c */
int page_is_reserved(u64 address);
unsigned int handover_areas(void);
int pagemap_read(const void *address, size_t pages, u64 *pfns);
u64 folios_of(const void *memory, u64 size);
void refresh_counters(void);
long long pinned_pages(void);
long long iommu_pages(void);
void compact_memory(void);
int collapse_memory(void *memory, u64 size);

/* Result of a system call as -errno. */
#define sys(call)							\
({									\
	long __ret = (call);						\
									\
	__ret < 0 ? -(long)errno : __ret;				\
})

const char *errno_name(long ret);

#define bail(format, ...)						\
	dialogue_bail("%s:%d: " format, __FILE_NAME__, __LINE__, ##__VA_ARGS__)

/* Value of @expr, or the end of this side when it is a -errno. */
#define must(expr)							\
({									\
	long __value = (expr);						\
									\
	if (__value < 0)						\
		bail("%s = %ld (%s)", #expr, __value, errno_name(__value)); \
	__value;							\
})

/* @pointer, which is not NULL. */
#define must_be_memory(pointer)						\
({									\
	void *__pointer = (pointer);					\
									\
	if (!__pointer)							\
		bail("%s: no memory", #pointer);			\
	__pointer;							\
})

#define must_be(condition, format, ...)					\
do {									\
	if (!(condition))						\
		bail("%s: " format, #condition, ##__VA_ARGS__);		\
} while (0)

/* time.c */
void run_on_cpu(unsigned int cpu);
void run_where_guests_may(void);
void report_cpu_timers(void);

/* A bound in time for a loop that polls. */
struct deadline {
	u64 ns;
};

struct deadline deadline_in_ms(u64 ms);
bool deadline_passed(struct deadline deadline);
void poll_pause(void);
u64 now_ns(void);
u64 now_us(void);

#endif

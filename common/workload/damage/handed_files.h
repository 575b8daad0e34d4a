/* SPDX-License-Identifier: GPL-2.0-only */
/* Memfds that are handed over, and what is to be seen of them in the next kernel. */
#ifndef HANDED_FILES_H
#define HANDED_FILES_H

#include "workload.h"

/**
 * struct handed_file - a memfd of a session
 * @session: name of the session; files of one session follow each other
 * @pages: pages of 4 KiB, each of which is written
 * @device_from: page from which on a device may write, and nobody else has; 0 for none
 * @fd: of the file; -errno where it was not retrieved
 * @session_fd: the same of its session
 */
struct handed_file {
	const char *session;
	u64 token, pages, device_from, position;
	u32 seals;
	int fd, session_fd;
};

/* Files follow each other up to one without a session. */
void make_files(struct handed_file *files);
void hand_over(struct handed_file *files, int luo_fd);
void take_over(struct handed_file *files, int luo_fd);
void say_contents(const struct handed_file *files, const char *when);
void finish_sessions(struct handed_file *files);
void let_go_and_use_memory(struct handed_file *files);

#endif

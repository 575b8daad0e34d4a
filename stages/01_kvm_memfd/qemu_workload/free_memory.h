/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef FREE_MEMORY_H
#define FREE_MEMORY_H

void watch_free_memory(void);
void report_free_memory(const char *doing);

#endif

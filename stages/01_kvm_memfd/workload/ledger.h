/* SPDX-License-Identifier: GPL-2.0-only */
/* What memory a kernel says it has, at points between which it took some or gave it back. */
#ifndef LEDGER_H
#define LEDGER_H

#include "workload.h"

/* Of a file whose memory is looked for: large enough to be seen among all else. */
#define LEDGER_FILE (2ull << 20)

int ledger_file(u64 size);
void ledger(const char *point);
void ledger_for_host(const char *point);
void say_kho_tree(void);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/* Memory comes back, whatever became of the file whose memory it was. */
#ifndef GIVEN_BACK_H
#define GIVEN_BACK_H

#include "workload.h"

/* KTAP results of each side. */
#define GIVEN_BACK_OUTGOING 9
#define GIVEN_BACK_INCOMING 6

void given_back_outgoing(int luo_fd);
void given_back_incoming(int luo_fd);

#endif

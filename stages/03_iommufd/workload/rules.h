/* SPDX-License-Identifier: GPL-2.0-only */
/* What is refused, with which errno, and that the device goes on all the while. */
#ifndef RULES_H
#define RULES_H

#include "nic.h"

/* A result of its own for each misuse. */
#define RULES_OUTGOING 26
#define RULES_INCOMING 35
/* Why those that are not tried are not. */
#define NOT_PROMISED "this kernel does not promise it"

void rules_of_marking(const struct nic *nic, int luo);
void rules_of_marked(const struct nic *nic, int luo);
void rules_of_late_refusal(const struct nic *nic, struct nic *other, int luo);
void rule_of_order(const struct nic *nic, int session);
void rules_of_preserved(const struct nic *nic);

void rule_of_incoming(const struct nic *nic);
void rules_of_retrieved(const struct nic *nic);
void rules_of_bound(const struct nic *nic, int session);
void rules_of_restore(const struct nic *nic);
void rule_of_right_restore(const struct nic *nic, int ret);
void rules_of_restored(const struct nic *nic, int session);
void rule_of_another_update(const struct nic *nic, int luo);
void rules_of_adopted(const struct nic *nic);

#endif

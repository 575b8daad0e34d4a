/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is refused between preserve and FINISH, each as one KTAP result: the
 * errno has to be the right one, and frames have to go on arriving.
 */
#ifndef RULES_H
#define RULES_H

#include "nic.h"

#define SESSION "kexec-stages"

enum {
	TOKEN_RAM = 1,
	TOKEN_STATE,
	TOKEN_DEVICE,
	TOKEN_OTHER_MEMORY,
	TOKEN_OTHER_DEVICE,
	TOKEN_UNUSED = 9,
};

#define RULES_OUTGOING 42
#define RULES_INCOMING 40
/* Why those that are not tried are not. */
#define NOT_PROMISED "this kernel does not promise it"

void rules_outgoing(const struct nic *nic, int luo_fd);
void free_other_port(void);
void rule_of_disabled_port(const struct nic *nic, const struct nic *other, int luo_fd);
void preserve_others(const struct nic *other, int session_fd);
void refused_reboots(const struct nic *nic, const struct nic *other, int session_fd);
void set_power_state(const struct nic *nic, u16 state);
void refused_unbinding(const struct nic *nic);
void rules_before_bind(const struct nic *nic, int session_fd);
void rules_before_retrieve(const struct nic *nic, int session_fd);
void rules_before_attach(const struct nic *nic, int session_fd, int device);
void rules_of_finish(const struct nic *nic, int session_fd);
void rule_of_another_update(const struct nic *nic, int luo_fd);
void rules_of_adopted(const struct nic *nic);
void rules_after_finish(struct nic *nic, bool others);
void rule_of_unbinding(const struct nic *nic);
void find_again(const struct nic *nic);

#endif

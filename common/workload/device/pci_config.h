/* SPDX-License-Identifier: GPL-2.0-only */
/* Configuration space, as the kernel reads it from the device. */
#ifndef PCI_CONFIG_H
#define PCI_CONFIG_H

#include "workload.h"

/* An igb has no capability behind that. */
#define PCI_CONFIG_MAX 512

void pci_config_read(const char *bdf, size_t from, size_t to, u8 *config);

/* Of every function of the machine: remembered, and later which byte is another. */
void pci_config_remember(void);
void pci_config_report_changed(const char *key);

#endif

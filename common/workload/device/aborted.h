/* SPDX-License-Identifier: GPL-2.0-only */
/* What a live update that is called off may leave behind: nothing. */
#ifndef ABORTED_H
#define ABORTED_H

/*
 * Before the first preserve, and after the last abort: pages that are pinned, and the configuration
 * of each PCI function. At `await kho-unpreserved` and `kho-aborted` the host counts what is
 * registered with KHO.
 */
void aborted_remember(void);
void aborted_report(void);

#endif

# SPDX-License-Identifier: GPL-2.0-only
"""What the sweep of stage 2 makes fail; see sweep_workload."""

from __future__ import annotations

from common.checks.swept import SweptCall, SweptCalls
from common.dma.igb import igb_pairs

PORTS, ROOT_SLOTS = 8, range(4, 13, 2)
"""As sweep_workload has them: a device that goes through a call although something failed in it
cannot do so again. The firmware has I/O ports for eight bridges. QEMU has numbers for the VFs of
two functions; on the root's bus they reach to the slot after the next."""

SWEPT_CALLS = SweptCalls(
    outgoing=(
        SweptCall(name="preserve_device"),
        SweptCall(name="close_preserved"),
        SweptCall(name="preserve_kept", once=True),
    ),
    incoming=(
        SweptCall(name="bind_device", once=True),
        SweptCall(name="retrieve_device", once=True),
        SweptCall(name="open_device", once=True),
        SweptCall(name="map_memory", once=True),
        SweptCall(name="attach_device", once=True),
        SweptCall(name="finish", once=True),
    ),
    devices=lambda: igb_pairs(ports=PORTS, root_slots=ROOT_SLOTS),
    # With ARI a function names the next one, and an igb of QEMU's names none.
    # And where ACPI is asked for a device's interrupt, it allocates a lot that it can do without.
    cmdline=("pci=noari", "acpi=noirq"),
)

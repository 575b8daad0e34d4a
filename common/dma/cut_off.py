# SPDX-License-Identifier: GPL-2.0-only
"""Writes to configuration space by which a device is reset, or cut off, while it is running.

QEMU's models ignore some of them, hardware does not: a port that disables its link, or has no bus
numbers for a moment, takes a device away from its memory though no frame is lost here.
"""

from __future__ import annotations

from common.dma.igb import Places
from common.record.qemu.trace import ConfigWrite

# include/uapi/linux/pci_regs.h
_PRIMARY_BUS, _SUBORDINATE_BUS = 0x18, 0x1A
_BRIDGE_CONTROL, _BRIDGE_CONTROL_BUS_RESET = 0x3E, 0x40
_DEVCTL, _DEVCTL_FLR = 0x08, 0x8000
_LNKCTL, _LNKCTL_DISABLE = 0x10, 0x10
# Where the PCI Express capability is: hw/pci-bridge/gen_pcie_root_port.c, xio3130_upstream.c,
# xio3130_downstream.c, hw/net/igb.c
_OF_ROOT_PORT, _OF_SWITCH, _OF_IGB = 0x54, 0x90, 0xA0


def cuts_off(write: ConfigWrite, at: Places) -> str | None:
    """What the write does to the device, in words; None for nothing of that kind."""
    if write.bdf == at.device:
        flr = write.offset == _OF_IGB + _DEVCTL and write.value & _DEVCTL_FLR
        return "function-level reset" if flr else None
    if write.bdf not in at.bridges:
        return None
    express = _OF_ROOT_PORT if write.bdf.startswith("00:") else _OF_SWITCH
    if write.offset == _BRIDGE_CONTROL and write.value & _BRIDGE_CONTROL_BUS_RESET:
        return "secondary bus reset"
    if write.offset == express + _LNKCTL and write.value & _LNKCTL_DISABLE:
        return "link disabled"
    # Whatever is written: on the way there the bus below has another number, or none.
    if _PRIMARY_BUS <= write.offset <= _SUBORDINATE_BUS:
        return "bus numbers written"
    return None

# SPDX-License-Identifier: GPL-2.0-only
"""What the sweep of stage 3 makes fail; see sweep_workload."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from common.checks.swept import SweptCall, SweptCalls
from common.dma.igb import igb_behind_ports
from iommufd.machine import iommu

PORT_SLOTS, ROOT_SLOTS = (2, 3, *range(14, 20)), range(4, 13, 2)
"""As sweep_workload has them. One function in each slot, which has an IOMMU group of its own then;
the numbers of VFs reach from a slot on the root's bus to those beyond the ports."""


def _devices() -> tuple[ET.Element, ...]:
    return (iommu(remapping=True), *igb_behind_ports(PORT_SLOTS, ROOT_SLOTS))


SWEPT_CALLS = SweptCalls(
    outgoing=(
        SweptCall(name="mark_hwpt", once=True),
        SweptCall(name="preserve_iommufd"),
        SweptCall(name="preserve_device"),
        SweptCall(name="close_preserved"),
        SweptCall(name="keep_iommufd", once=True),
        SweptCall(name="keep_device", once=True),
    ),
    incoming=(
        SweptCall(name="retrieve_iommufd", once=True),
        SweptCall(name="bind_device", once=True),
        SweptCall(name="retrieve_device", once=True),
        SweptCall(name="open_device", once=True),
        SweptCall(name="map_memory", once=True),
        # A page table that was restored stays for the next attempt (iommufd_hwpt_set_restored()).
        SweptCall(name="restore_hwpt", once=True, keeps=frozenset({"total"})),
        SweptCall(name="attach_device", once=True),
        SweptCall(name="finish", once=True),
    ),
    devices=_devices,
)

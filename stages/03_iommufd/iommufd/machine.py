# SPDX-License-Identifier: GPL-2.0-only
"""Stage 3's machine: the two igb of stage 2, behind an Intel IOMMU in legacy mode."""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree as ET

from common.dma.igb import igb_devices


def devices(options: Mapping[str, int]) -> tuple[ET.Element, ...]:
    """The libvirt elements of IOMMU, ports and devices."""
    return (iommu(remapping=bool(options["intremap"])), *igb_devices(options))


def iommu(*, remapping: bool) -> ET.Element:
    """Nothing is cached that is not present, and there is no IOTLB in the devices."""
    element = ET.Element("iommu", model="intel")
    intremap = "on" if remapping else "off"
    ET.SubElement(element, "driver", intremap=intremap, caching_mode="off", iotlb="off")
    return element

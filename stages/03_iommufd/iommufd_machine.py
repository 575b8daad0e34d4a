# SPDX-License-Identifier: GPL-2.0-only
"""Stage 3's machine: the two igb of stage 2, behind an Intel IOMMU in legacy mode."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from common.igb_machine import igb_devices


def devices() -> tuple[ET.Element, ...]:
    """The libvirt elements of IOMMU, ports and devices."""
    return (_iommu(), *igb_devices())


def _iommu() -> ET.Element:
    """No interrupt remapping, nothing cached that is not present, no IOTLB in the devices."""
    iommu = ET.Element("iommu", model="intel")
    ET.SubElement(iommu, "driver", intremap="off", caching_mode="off", iotlb="off")
    return iommu

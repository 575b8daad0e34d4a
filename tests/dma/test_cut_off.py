# SPDX-License-Identifier: GPL-2.0-only
"""Which writes to configuration space reset a device or cut it off."""

from __future__ import annotations

import pytest

from common.dma.cut_off import cuts_off
from common.dma.igb import BEHIND_PORTS, BEHIND_SWITCH, Places
from common.record.qemu.trace import ConfigWrite


@pytest.mark.parametrize(
    ("at", "bdf", "offset", "value", "said"),
    [
        (BEHIND_PORTS, "00:02.0", 0x64, 0x10, "link disabled"),
        (BEHIND_PORTS, "00:02.0", 0x64, 0x20, None),
        (BEHIND_PORTS, "00:02.0", 0x3E, 0x42, "secondary bus reset"),
        (BEHIND_PORTS, "00:02.0", 0x3E, 0x02, None),
        (BEHIND_PORTS, "00:02.0", 0x18, 0x00, "bus numbers written"),
        (BEHIND_PORTS, "00:02.0", 0x1C, 0xD0D0, None),
        # of the other device, and of nobody's bridge
        (BEHIND_PORTS, "00:03.0", 0x3E, 0x42, None),
        (BEHIND_SWITCH, "02:00.0", 0xA0, 0x10, "link disabled"),
        (BEHIND_SWITCH, "02:00.0", 0x64, 0x10, None),
        (BEHIND_SWITCH, "03:00.0", 0xA8, 0x800F, "function-level reset"),
        (BEHIND_SWITCH, "03:00.0", 0xA8, 0x000F, None),
    ],
)
def test_what_takes_a_device_from_its_memory(
    at: Places, bdf: str, offset: int, value: int, said: str | None
) -> None:
    assert cuts_off(ConfigWrite(0, bdf, offset, value), at) == said

# SPDX-License-Identifier: GPL-2.0-only
"""What the witnesses of stage 1 with QEMU saw: guest, QEMU, and the machine's RAM."""

from __future__ import annotations

from typing import Any

from common.guest.lines import read_guest
from common.record.raw import RawTrial
from kvm_memfd.witness import read_witness as read_ram_witness


def read_witness(raw: RawTrial) -> dict[str, Any]:
    """All of a stored trial. Raises OSError or ValueError on damaged files."""
    return {**read_ram_witness(raw), **read_guest(raw)}

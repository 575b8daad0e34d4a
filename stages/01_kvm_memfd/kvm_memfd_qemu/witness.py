# SPDX-License-Identifier: GPL-2.0-only
"""What the witnesses of stage 1 with QEMU saw: guest, QEMU, and the machine's RAM."""

from __future__ import annotations

from common.guest.evidence import LinuxGuestEvidence, RamEvidence
from common.guest.lines import read_guest
from common.record.raw import RawTrial
from kvm_memfd.witness import read_witness as read_ram_witness


class QemuMemfdEvidence(RamEvidence, LinuxGuestEvidence):
    """Of stage 1 with QEMU."""


def read_witness(raw: RawTrial) -> QemuMemfdEvidence:
    """All of a stored trial. Raises OSError or ValueError on damaged files."""
    return QemuMemfdEvidence(ram=read_ram_witness(raw)[0], **dict(read_guest(raw)))

# SPDX-License-Identifier: GPL-2.0-only
"""Stage 3's controls with QEMU: runs that must fail, each for its own reason."""

from __future__ import annotations

from iommufd_qemu_checks import CLAIMS

from common import checks
from common.checks import INCOMING, fact_is
from common.controls import reason, was_reset
from common.stage import Control

LIVE = frozenset(check.name for check in CLAIMS[0].checks)
ALL = frozenset(check.name for claim in CLAIMS for check in claim.checks)
BEFORE = frozenset({"guest_ran_on", "preserved_meanwhile", "qemu_saved"})
WITHOUT_GUEST = ALL - LIVE - BEFORE

CONTROLS: tuple[Control, ...] = (
    Control(
        name="device-not-preserved",
        what="memory and iommufd are put into the session, the NIC is not",
        breaks=frozenset({"dma_in_gap", "device_retrieved", "guest_saw_all", "never_off"}),
        may_break=WITHOUT_GUEST,
        reason=reason(fact_is(INCOMING, "retrieve.device", "-2")),
    ),
    Control(
        name="firmware-reboot",
        what="a reboot through the firmware instead of the kexec",
        breaks=(LIVE - {"no_splat", "one_qemu"}) | {"no_silence", "never_held_up", "same_entry"},
        may_break=None,
        reason=reason(was_reset),
        holds=(checks.ONE_QEMU,),
    ),
)

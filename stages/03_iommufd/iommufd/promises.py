# SPDX-License-Identifier: GPL-2.0-only
"""Whose promise each of stage 3's checks is, and what is expected of kernels that lack ours."""

from __future__ import annotations

from common.checks.controls import reason
from common.checks.live_update import INCOMING, OUTGOING, fact_is, no_data, outcome
from common.checks.model import Check, Outcome
from common.checks.promise import (
    DMA,
    IOMMU,
    LINUX,
    LIVE_UPDATE,
    RESTORED,
    RUNNING,
    SUITE,
    Expiry,
    Gap,
    Promise,
)
from common.dma.controls import STOPPED_AT_KEXEC
from common.record.evidence import Trial
from iommufd.reasons import turned_off

# Of both workloads of the stage.
TRANSLATION: dict[str, Promise] = {
    "never_off": IOMMU,
    "one_handover": IOMMU,
    "no_other_fault": IOMMU,
    "root_taken_over": IOMMU,
    "same_entry": IOMMU,
    "same_table": IOMMU,
    "domain_id_reserved": IOMMU,
    "device_retrieved": RESTORED,
    "other_blocked": LINUX,
    "remapping_on": IOMMU,
}
PROMISES: dict[str, Promise] = {
    **LIVE_UPDATE,
    **DMA,
    **TRANSLATION,
    "reader_saw_all": RUNNING,
    "ring_went_round": RUNNING,
    "driven": RUNNING,
    "above_ram": SUITE,
    "unmapped_faulted": RUNNING,
    "requests_blocked": RUNNING,
    "canary": RUNNING,
    "reuse_faults": RESTORED,
    "unmap_faults": RESTORED,
    "map_lands": RESTORED,
    "pinned": RESTORED,
    "pages_in_place": RESTORED,
    "detached_blocked": RESTORED,
    "all_given_back": RESTORED,
    "let_go": RESTORED,
    "interrupts_arrive": RESTORED,
    "idle_when_closed": RESTORED,
    "own_domain_again": RESTORED,
    "unpinned": LINUX,
    "faults_reported": IOMMU,
    "outgoing_rules": RESTORED,
    "incoming_rules": RESTORED,
    "aborts_unnoticed": IOMMU,
    "session_finished": RESTORED,
}


def _refused(trial: Trial) -> Outcome:
    """The incoming kernel's own errno for the iommufd, or for the first that needs it."""
    side = trial.side(INCOMING)
    keys = ("retrieve.iommufd", "bind.device", "restore.hwpt")
    seen = {key: side.facts[key] for key in keys if side and key in side.facts}
    refused = next((f"{key}={value}" for key, value in seen.items() if value != "0"), None)
    if not seen:
        return no_data(f"facts {', '.join(keys)}", expected="one of them refused")
    return outcome(
        refused is not None,
        expected="the iommufd, or what needs it, is refused in the incoming kernel",
        seen=refused or "none is",
        evidence="incoming facts",
    )


_OTHERS = frozenset(name for name, whose in PROMISES.items() if whose.marks)
_BEFORE = {"preserved_meanwhile", "above_ram", "aborts_unnoticed"}
_RULES = ("outgoing_rules", "incoming_rules")
_TABLES = frozenset({"never_off", "root_taken_over", "same_entry", "same_table"})
# What is asked of the iommufd, and falls by the errno for it.
_OF_IOMMUFD = (
    "device_retrieved",
    "reuse_faults",
    "unmap_faults",
    "map_lands",
    "pinned",
    "pages_in_place",
    "detached_blocked",
    "all_given_back",
    "let_go",
    "interrupts_arrive",
    "idle_when_closed",
    "own_domain_again",
    "aborts_unnoticed",
    "session_finished",
)
_NO_IOMMUFD = reason(fact_is(OUTGOING, "preserve.iommufd", "-2"))
GAPS = (
    Gap(
        name="translation",
        lacks=IOMMU,
        what="a kernel that hands over no translation: it turns the IOMMU off at kexec",
        breaks=_TABLES | {"dma_in_gap", "no_silence", "never_held_up", "device_retrieved"},
        may_break=_OTHERS,
        unasked=dict.fromkeys(_RULES, "no iommufd can be preserved"),
        cause=reason(turned_off, timed=True),
        causes={
            **dict.fromkeys(
                ("no_device_reset", "bus_mastering_kept", "never_gated"), STOPPED_AT_KEXEC
            ),
            **dict.fromkeys(_OF_IOMMUFD, _NO_IOMMUFD),
        },
        until=Expiry(release=(7, 7)),
    ),
    Gap(
        name="iommufd",
        lacks=RESTORED,
        what="a kernel that hands over page tables, but no iommufd to use them",
        breaks=frozenset({"device_retrieved", "dma_in_gap", "no_silence", "unmap_faults"}),
        may_break=_OTHERS - _BEFORE - _TABLES,
        unasked=dict.fromkeys(_RULES, "the errnos are those of our series"),
        cause=reason(_refused),
        holds=(Check("marked", "Was the HWPT marked?", fact_is(OUTGOING, "mark", "0")),),
        until=Expiry(release=(7, 8)),
    ),
)

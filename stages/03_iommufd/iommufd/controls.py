# SPDX-License-Identifier: GPL-2.0-only
"""Stage 3's controls: runs that must fail, each for the intended reason."""

from __future__ import annotations

from common.checks import live_update as checks
from common.checks.controls import panicked, reason, was_reset
from common.checks.live_update import INCOMING, OUTGOING, fact_is, facts_are
from common.checks.model import Check, Control
from common.dma.controls import (
    CONFIG_UNTOUCHED,
    NO_INTERRUPT,
    aborts_were_silent,
    master_cleared_at_kexec,
)
from iommufd.checks import CLAIMS
from iommufd.reasons import (
    all_noticed,
    cache_was_stale,
    canary_overwritten,
    given_away,
    goes_on_faulting,
    iova_in_ram,
    no_table_between,
    other_left_alone,
    remapping_turned_off,
    replaced,
    still_mapped,
    still_there,
    stopped_by_finish,
    tail_left,
    translated_no_more,
    turned_off,
    untold_faults,
)

LIVE = frozenset(check.name for check in CLAIMS[0].checks)
ALL = frozenset(check.name for claim in CLAIMS for check in claim.checks)
BEFORE = frozenset({"preserved_meanwhile", "above_ram", "outgoing_rules", "aborts_unnoticed"})
# What cannot be asked where nobody takes the device over. Without a preserved device there is no
# IOMMU to hand over, and the kernels turn it off and on as ever.
WITHOUT_TRANSLATION = frozenset(
    {
        "dma_in_gap",
        "no_silence",
        "never_held_up",
        "bus_mastering_kept",
        "never_off",
        "one_handover",
        "root_taken_over",
        "same_entry",
        "same_table",
        "device_retrieved",
    }
)
WITHOUT_DEVICE = (ALL - LIVE - BEFORE) | {"outgoing_rules", "dialogue_complete"}


_TAKEN_BACK = {
    "taker.signal": "9",
    "taker.session": "-2",
    "taker.open": "0",
    "taker.reset": "0",
    "taker.frames": "yes",
}
"""The session is gone with the process, and the device is like any other."""


def _taker_killed(last: str, *, before: str) -> Control:
    """The process that takes over the device dies after `last`; a step of workload/taken_over.c."""
    return Control(
        name=f"taker-killed-{last}",
        what=f"the process that takes over the device is killed {before}: the device is stopped,"
        " and whoever comes next can use it",
        breaks=frozenset({"device_retrieved", "no_device_reset", "host_saw_all"}),
        may_break=WITHOUT_DEVICE | {"same_entry", "same_table", "clock_rate"},
        reason=reason(facts_are(INCOMING, _TAKEN_BACK)),
        holds=(Check("untranslated", "Is the device's translation over?", translated_no_more),),
    )


# Patches that build on others, and are left out with them.
_READ_ONLY, _NO_SPLIT = "iommufd-Preserve-memory", "iommufd-Restore-no-area"
_BLOCK, _INSIST = "iommu-vt-d-Block-interrupt", "iommu-vt-d-Insist"
NEVER_OFF = next(c.ask for claim in CLAIMS for c in claim.checks if c.name == "never_off")
STILL_ON = Check("still_on", "Was translation on throughout?", NEVER_OFF)


def _skew(
    name: str,
    what: str,
    *words: str,
    with_patch: str | None = None,
    with_config: str | None = None,
) -> Control:
    """An incoming kernel that does not know what is handed over: it stops, and says what."""
    return Control(
        name=f"skew-{name}",
        what=f"an incoming kernel {what}: it refuses to boot, and leaves the IOMMU alone",
        incoming_only=True,
        breaks=frozenset({"no_splat", "both_sides_ended_well", "device_retrieved"}),
        may_break=None,
        reason=reason(panicked("liveupdate", *words)),
        holds=(CONFIG_UNTOUCHED, STILL_ON, checks.ONE_QEMU),
        with_patch=with_patch,
        with_config=with_config,
    )


CONTROLS = (
    Control(
        name="handover-patch-off",
        what="a kernel without the patch that leaves translation on at kexec",
        without_patch=("iommu-vt-d-go-on", _BLOCK, _INSIST),
        breaks=frozenset({"never_off", "one_handover", "no_splat", "both_sides_ended_well"}),
        may_break=None,
        reason=reason(turned_off),
        holds=(
            Check(
                "panic",
                "Does the incoming kernel stop, and say why?",
                panicked("translation was handed over, but is disabled"),
            ),
            checks.ONE_QEMU,
        ),
    ),
    Control(
        name="attach-patch-off",
        what="an incoming kernel without the patch that attaches what is in use: its default domain"
        " replaces the live page table",
        without_patch="iommu-vt-d-attach-a-domain",
        incoming_only=True,
        breaks=frozenset({"same_entry", "same_table", "no_other_fault", "device_retrieved"}),
        may_break=WITHOUT_DEVICE,
        reason=reason(replaced),
        holds=(STILL_ON,),
    ),
    Control(
        name="adopt-patch-off",
        what="an incoming kernel without the patch that takes over the tables: it disables"
        " translation",
        without_patch=("iommu-vt-d-take-over", _INSIST),
        incoming_only=True,
        breaks=frozenset({"never_off", "root_taken_over", "no_splat", "both_sides_ended_well"}),
        may_break=None,
        reason=reason(turned_off),
        holds=(checks.ONE_QEMU,),
    ),
    Control(
        name="lost-page-patch-off",
        what="a kernel without the patch that refuses an IOAS whose page the memfd has lost",
        without_patch="iommufd-preserve-no-IOAS",
        breaks=frozenset({"outgoing_rules"}),
        reason=reason(fact_is(OUTGOING, "rule.preserve_with_a_page_lost", "0")),
    ),
    Control(
        name="pin-patch-off",
        what="an incoming kernel without the patch that pins a retrieved memfd, while memory is"
        " compacted",
        without_patch="mm-memfd_luo-keep-restored-folios",
        incoming_only=True,
        breaks=frozenset({"pages_in_place"}),
        may_break=WITHOUT_DEVICE,
        reason=reason(fact_is(INCOMING, "compacted.retrieved", "moved")),
    ),
    Control(
        name="iommu-off-in-incoming",
        what="the incoming kernel is told intel_iommu=off: it must stop rather than continue",
        cmdline=lambda words: (*words, "stage.incoming=intel_iommu=off"),
        breaks=frozenset({"no_splat", "both_sides_ended_well", "root_taken_over"}),
        may_break=None,
        reason=reason(panicked("translates for preserved devices, and must not be")),
        holds=(checks.ONE_QEMU,),
    ),
    Control(
        name="interrupts-patch-off",
        what="kernels without the patch that blocks interrupt requests at kexec: the table of the"
        " outgoing kernel stays in use",
        without_patch=(_BLOCK, _INSIST),
        breaks=frozenset({"remapping_on"}),
        reason=reason(no_table_between),
        holds=(STILL_ON,),
    ),
    Control(
        name="remapping-patch-off",
        what="an incoming kernel without the patch that leaves interrupt remapping on: it turns it"
        " off and on again",
        without_patch="iommu-vt-d-Keep-interrupt",
        incoming_only=True,
        breaks=frozenset({"remapping_on"}),
        # By a request that falls into the moment.
        may_break=frozenset({"requests_blocked"}),
        reason=reason(remapping_turned_off(by="incoming")),
        holds=(STILL_ON,),
    ),
    Control(
        name="remapping-off-at-kexec",
        what="an outgoing kernel that turns interrupt remapping off at the kexec: the device's"
        " requests get through until the incoming kernel turns it on",
        with_patch="faults/remapping-off-at-kexec.patch",
        breaks=frozenset({"remapping_on", "requests_blocked"}),
        reason=reason(remapping_turned_off(by="outgoing")),
        holds=(STILL_ON,),
    ),
    Control(
        name="remapping-off-in-incoming",
        what="the incoming kernel is told intremap=off: it must stop rather than continue",
        cmdline=lambda words: (*words, "stage.incoming=intremap=off"),
        breaks=frozenset({"remapping_on", "no_splat", "both_sides_ended_well"}),
        may_break=None,
        reason=reason(panicked("interrupt remapping was handed over, and must not be off")),
        holds=(STILL_ON, checks.ONE_QEMU),
    ),
    _skew(
        "iommu-list",
        "whose list of IOMMUs has another format",
        "'iommu-live-v1'",
        with_patch="faults/another-iommu-list.patch",
    ),
    _skew(
        "iommu-list-off",
        "without IOMMU_LIVEUPDATE",
        "'iommu-live-v1'",
        with_config="faults/no-iommu-list.config",
    ),
    _skew(
        "iommu-list-corrupted",
        "that finds a bit of the list of IOMMUs changed",
        "'iommu-live-v1'",
        with_patch="faults/list-corrupted.patch",
    ),
    Control(
        name="every-bit-changed",
        what="an incoming kernel in which each bit of everything that arrives with a header"
        " is changed in turn, and each shorter size tried: all are detected, and it"
        " stops",
        with_patch="faults/every-bit.patch",
        incoming_only=True,
        breaks=frozenset({"no_splat", "both_sides_ended_well", "device_retrieved"}),
        may_break=None,
        reason=reason(all_noticed),
        holds=(CONFIG_UNTOUCHED, STILL_ON, checks.ONE_QEMU),
    ),
    Control(
        name="areas-patch-off",
        what="an incoming kernel without the patch that compares memory, not areas: one"
        " area mapped in two halves is restored and attached, but can never be finished",
        without_patch="iommufd-Compare-memory",
        incoming_only=True,
        breaks=frozenset({"session_finished"}),
        may_break=WITHOUT_DEVICE,
        reason=reason(
            facts_are(INCOMING, {"restore.hwpt": "0", "attach.device": "0", "finish": "-16"})
        ),
    ),
    Control(
        name="files-patch-off",
        what="an incoming kernel without the patch that refuses to restore a HWPT with"
        " memory of the process",
        without_patch="iommufd-Restore-no-HWPT",
        incoming_only=True,
        breaks=frozenset({"incoming_rules", "device_retrieved"}),
        may_break=WITHOUT_DEVICE,
        reason=reason(fact_is(INCOMING, "rule.restore_with_memory_of_the_process", "0")),
    ),
    Control(
        name="permissions-patch-off",
        what="kernels without the patch that preserves memory which the device may only read",
        without_patch=(_READ_ONLY, _NO_SPLIT),
        breaks=frozenset({"outgoing_rules"}),
        # Without the second one, the kernel takes back what it cannot unmap.
        may_break=WITHOUT_DEVICE | {"no_splat"},
        reason=reason(fact_is(OUTGOING, "rule.preserve_with_read_only_memory", "-22")),
    ),
    Control(
        name="permissions-not-compared",
        what="an incoming kernel in which RESTORE compares addresses but not permissions",
        with_patch="faults/permissions-not-compared.patch",
        incoming_only=True,
        breaks=frozenset({"incoming_rules", "pinned", "device_retrieved"}),
        may_break=WITHOUT_DEVICE,
        reason=reason(fact_is(INCOMING, "rule.restore_with_an_area_read_only", "0")),
    ),
    Control(
        name="device-not-preserved",
        what="memory and iommufd are added to the session, the device is not",
        breaks=WITHOUT_TRANSLATION,
        may_break=WITHOUT_DEVICE,
        reason=reason(fact_is(INCOMING, "retrieve.device", "-2")),
    ),
    Control(
        name="hwpt-not-marked",
        what="the HWPT is not marked: neither iommufd nor device can be preserved",
        breaks=WITHOUT_TRANSLATION,
        may_break=WITHOUT_DEVICE | {"aborts_unnoticed"},
        reason=reason(fact_is(OUTGOING, "preserve.iommufd", "-22")),
        holds=(
            Check("refused", "Is the device refused?", fact_is(OUTGOING, "preserve.device", "-2")),
            Check(
                "master_cleared",
                "Is bus mastering cleared at the kexec?",
                master_cleared_at_kexec().ask,
            ),
        ),
    ),
    Control(
        name="nothing-retrieved",
        what="FINISH without retrieving anything: the device must be stopped first",
        breaks=frozenset(
            {"device_retrieved", "same_entry", "same_table", "no_device_reset", "host_saw_all"}
        ),
        # It tells no times, of which the rate of its clock could be had.
        may_break=WITHOUT_DEVICE | {"clock_rate"},
        reason=reason(stopped_by_finish),
    ),
    _taker_killed("iommufd", before="with the iommufd retrieved, and the device not"),
    _taker_killed("device", before="before it has bound the device to the iommufd"),
    _taker_killed("restore", before="before it has attached the device to the restored HWPT"),
    _taker_killed("attach", before="with everything done but FINISH"),
    Control(
        name="unmapped-undeclared",
        what="the unmapped descriptors are not declared",
        breaks=frozenset({"no_other_fault", "unmapped_faulted", "host_saw_all", "reader_saw_all"}),
        reason=reason(untold_faults),
    ),
    Control(
        name="frame-corrupted",
        what="one bit of a frame is flipped in memory before the reader looks at it",
        breaks=frozenset({"reader_saw_all"}),
        # Where the host looks later than the reader, it sees what the reader saw.
        may_break=frozenset({"host_saw_all"}),
        reason=reason(fact_is(INCOMING, "reader.frames.damaged", "1")),
    ),
    Control(
        name="canary-mapped",
        what="the page at the unmapped address is mapped there",
        breaks=frozenset({"unmapped_faulted", "canary", "above_ram"}),
        # RESTORE finds that one missing before it has locked too much.
        may_break=frozenset({"incoming_rules"}),
        reason=reason(canary_overwritten),
    ),
    Control(
        name="comparison-off",
        what="an incoming kernel in which RESTORE does not compare memory",
        with_patch="faults/comparison-off.patch",
        incoming_only=True,
        breaks=frozenset({"incoming_rules", "pinned", "device_retrieved"}),
        # It unpins a large folio that it has not pinned, and then loops in shmem_undo_range().
        may_break=WITHOUT_DEVICE | {"no_splat"},
        reason=reason(fact_is(INCOMING, "rule.restore_with_an_area_twice", "0")),
    ),
    Control(
        name="domain-id-not-reserved",
        what="an incoming kernel that does not reserve the domain ID that the device is using",
        with_patch="faults/domain-id-not-reserved.patch",
        incoming_only=True,
        breaks=frozenset({"domain_id_reserved"}),
        may_break=WITHOUT_DEVICE,
        reason=reason(given_away),
    ),
    Control(
        name="iova-in-ram",
        what="the device is given IOVAs that are addresses of RAM",
        breaks=frozenset({"above_ram"}),
        reason=reason(iova_in_ram),
    ),
    Control(
        name="tail-left",
        what="nobody advances the ring's tail in the incoming kernel",
        breaks=frozenset({"ring_went_round", "driven"}),
        may_break=frozenset(
            {
                "host_saw_all",
                "device_counted_all",
                "reader_saw_all",
                "never_gated",
                "never_held_up",
                "unmap_faults",
                "map_lands",
                "reuse_faults",
                "detached_blocked",
                "faults_reported",
                "all_given_back",
                "let_go",
                "interrupts_arrive",
                "idle_when_closed",
                "own_domain_again",
                "unpinned",
            }
        ),
        reason=reason(tail_left),
    ),
    Control(
        name="unmap-left-out",
        what="nothing is unmapped after FINISH",
        breaks=frozenset({"unmap_faults", "map_lands", "reuse_faults"}),
        reason=reason(still_mapped),
    ),
    Control(
        name="iotlb-not-flushed",
        what="an incoming kernel that leaves translations in the IOMMU's cache when it unmaps",
        with_patch="faults/iotlb-not-flushed.patch",
        incoming_only=True,
        breaks=frozenset({"reuse_faults"}),
        # What was in use a whole round ago may be cached or not.
        may_break=frozenset({"unmap_faults", "map_lands"}),
        reason=reason(cache_was_stale),
    ),
    Control(
        name="map-left-out",
        what="what was unmapped after FINISH is not mapped again",
        breaks=frozenset({"map_lands"}),
        reason=reason(goes_on_faulting),
    ),
    NO_INTERRUPT,
    Control(
        name="kept",
        what="in the end the device is neither detached nor closed, and HWPT and IOAS stay",
        breaks=frozenset(
            {"detached_blocked", "faults_reported", "all_given_back", "let_go", "unpinned"}
            | {"idle_when_closed", "own_domain_again"}
        ),
        reason=reason(still_there),
    ),
    Control(
        name="other-left",
        what="nobody forces the second device's bus mastering on",
        breaks=frozenset({"other_blocked"}),
        reason=reason(other_left_alone),
    ),
    Control(
        name="receiver-off",
        what="the device's receiver is off during the aborts",
        breaks=frozenset({"aborts_unnoticed", "never_gated", "never_held_up"}),
        # Ten seconds of frames are kept back, and then come at once, more than the ring takes.
        may_break=frozenset(
            {
                "outgoing_rules",
                "preserved_meanwhile",
                "dma_in_gap",
                "no_silence",
                "host_saw_all",
                "device_counted_all",
                "reader_saw_all",
                "ring_went_round",
                "head_went_on",
            }
        ),
        reason=reason(aborts_were_silent),
    ),
    Control(
        name="firmware-reboot",
        what="a reboot through the firmware instead of the kexec",
        breaks=(LIVE - {"no_splat", "one_qemu"})
        | {"no_silence", "never_held_up", "never_off", "same_entry"},
        may_break=None,
        reason=reason(was_reset),
        holds=(checks.ONE_QEMU,),
    ),
)

# SPDX-License-Identifier: GPL-2.0-only
"""Stage 2's claims and the questions to the record that show them. Pure functions of a Trial."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from common.checks import live_update as checks
from common.checks.live_update import INCOMING, OUTGOING, facts_are, no_data, outcome, results_ok
from common.checks.model import Check, Claim, Outcome
from common.dma import checks as frame_checks
from common.dma import said
from common.dma.after import (
    IDLE_WHEN_CLOSED,
    INTERRUPTS_ARRIVE,
    LANDS_AFTER,
    LET_GO,
    SAME_PLACE,
    unpinned,
)
from common.dma.evidence import frames_of
from common.guest import checks as guest_checks
from common.record.evidence import Trial

# TAINT_USER: what registering a no-IOMMU device does to a kernel (drivers/vfio/group.c:
# vfio_group_find_or_alloc, vfio_main.c: __vfio_register_dev).
TAINT = 64


def _guest_saw_all(trial: Trial) -> Outcome:
    frames, side = frames_of(trial), trial.side(INCOMING)
    keys = ("guest.frames", "guest.frames.lost", "guest.frames.repeated", "guest.frames.damaged")
    seen = [side.facts.get(key) if side else None for key in keys]
    if frames is None or not frames.sent or None in seen:
        return no_data("facts guest.frames.*", expected="every frame once")
    return outcome(
        seen == [str(frames.sent), "0", "0", "0"],
        expected=f"{frames.sent} frames, none lost, repeated or damaged",
        seen=f"{seen[0]} frames, {seen[1]} lost, {seen[2]} repeated, {seen[3]} damaged",
        evidence="incoming facts guest.frames.*, against device-sent.bin",
    )


def _page_tables_agree(trial: Trial) -> Outcome:
    return checks.fact_is(OUTGOING, "pfn.unlike_pagemap", "0")(trial)


def _pinned(trial: Trial) -> Outcome:
    """One pin for each folio that came, small or large: by what the kernel counts on either end."""
    side = trial.side(INCOMING)
    keys = ("finish.folios", "retrieve.pins", "finish.unpinned")
    folios, pinned, unpinned = (side.number(key) if side else None for key in keys)
    expected = "each folio pinned once by retrieve, and let go by FINISH"
    if folios is None or pinned is None or unpinned is None:
        return no_data(f"facts {', '.join(keys)}", expected=expected)
    return outcome(
        folios == pinned == unpinned > 0,
        expected=expected,
        seen=f"{folios} folios; {pinned} pinned by retrieve, {unpinned} let go by FINISH",
        evidence=f"incoming facts {', '.join(keys)}",
    )


def _aborts(trial: Trial) -> Outcome:
    side, times = trial.side(OUTGOING), trial.setting.options["aborts"]
    wanted = dict.fromkeys(("closed", "killed"), f"{times} times, 0 silent")
    if trial.setting.options.get("switch") == "1":
        wanted["neighbour"] = "1 times, 0 silent"
    seen = {how: side.facts.get(f"aborts.{how}") if side else None for how in wanted}
    left = frame_checks.aborted(trial)
    if None in seen.values() or left is None:
        return no_data("facts aborts.*", expected=_said(wanted))
    return outcome(
        seen == wanted and times != "0" and left.nothing,
        expected=f"session closed, holder killed: {_said(wanted)}; nothing is left of it",
        seen=f"{_said(seen)}; {left.said}",
        evidence="outgoing facts aborts.*; kho.json",
    )


def _wrong_errno(side: str) -> Callable[[Trial], bool]:
    """Some misuse returned what it must not, whether or not frames came: rule.N.seen begins with
    it, and rule.N.expected with what is right."""

    def ask(trial: Trial) -> bool:
        spoken = trial.side(side)
        facts = spoken.facts if spoken else {}
        wanted = {k.removesuffix(".expected"): v for k, v in facts.items() if _EXPECTED.match(k)}
        return any(
            text.split()[:1] != facts.get(f"{key}.seen", "").split()[:1]
            for key, text in wanted.items()
        )

    return ask


def _said(aborts: Mapping[str, str | None]) -> str:
    return "; ".join(f"{how} {said}" for how, said in aborts.items())


_WAYS = ("unbind", "remove", "unbind_port", "remove_port")
_RACE = re.compile(r"([1-9][0-9]*) rounds: .*, (0|[1-9][0-9]*) wrong")
# Of the patch that holds the drivers of the bridges: 02/0039.
RACES_CONTROL = "bridge-locks-patch-off"


def _nothing_taken_away(trial: Trial) -> Outcome:
    """Beside a live update of the second device, it and its port are taken away, or are not."""
    side, asked = trial.side(OUTGOING), trial.setting.options.get("races", "0") != "0"
    if trial.setting.control not in (None, RACES_CONTROL):
        asked = False
    seen = {way: side.facts.get(f"races.{way}") if side else None for way in _WAYS}
    found = {way: _RACE.fullmatch(said) for way, said in seen.items() if said}
    if asked and (side is None or len(found) < len(_WAYS) or None in found.values()):
        return no_data("facts races.*", expected="none taken away while it is preserved")
    wrong = side.facts.get("races.wrong") if side else None
    return outcome(
        asked == bool(found) and all(match and match[2] == "0" for match in found.values()),
        expected="each refused, or over before, or waiting for the device's file"
        if asked
        else "not tried here",
        seen="; ".join(f"{way}: {said}" for way, said in seen.items() if said) or "not tried",
        evidence=f"outgoing facts races.*{f'; {wrong}' if wrong else ''}",
    )


_EXPECTED = re.compile(r"rule\.[0-9]+\.expected\Z")
DEVICE_RETRIEVED = Check(
    "device_retrieved",
    "Was the device retrieved and taken over?",
    facts_are(INCOMING, {"retrieve.device": "0", "bind.device": "0"}),
)
_FROZEN = (
    "reset",
    "hot_reset",
    "set_irqs_msix",
    "set_irqs_intx",
    "write_flr_bit",
    "write_d3hot",
    "write_command",
    "write_bar",
    "low_power_entry",
    "sysfs_reset",
    "sysfs_remove",
    "sysfs_disable",
    "enable_vfs",
    "sysfs_remove_port",
    "sysfs_reset_subordinate",
    "unbind",
    "unbind_port",
    "get_pa_still_works",
)
# The errno of each stands beside its test in workload/rules.c.
OUTGOING_RULES = (
    "preserve_unbound_file",
    "preserve_device_before_memfd",
    "preserve_with_memfd_elsewhere",
    "preserve_with_msix",
    "preserve_with_intx",
    "preserve_with_error_eventfd",
    "preserve_with_request_eventfd",
    "preserve_with_ioeventfd",
    "preserve_with_anonymous_memory",
    "map_after_refused_preserve",
    "preserve_device",
    "preserve_device_twice",
    "preserve_with_token_in_use",
    "attach_other_ioas",
    "detach",
    "map",
    "unmap",
    "resize_memfd",
    *_FROZEN,
    "kexec_without_kho",
    "session_after_refused_kexec",
    "map_after_abort",
    "unmap_after_abort",
    "write_command_after_abort",
    "sysfs_disable_port_without_driver",
)
INCOMING_RULES = (
    "bind_by_id_without_override",
    "bind_by_hand_without_override",
    "retrieve_before_bind",
    "sysfs_reset_before_bind",
    "sysfs_remove_before_bind",
    "kexec_with_a_session_unfinished",
    "retrieve_without_privilege",
    "open_cdev",
    "open_group",
    "retrieve_twice_is_same_file",
    "finish_when_not_bound",
    "finish_when_not_attached",
    "finish_with_memory_elsewhere",
    "finish_with_other_pages",
    "finish_with_half_of_the_memory",
    *_FROZEN,
    "preserve_after_finish",
    "reset_after_finish",
    "no_register_without_memory_space",
    "config_restored_by_close",
    "open_after_close",
    "unbind_of_port_after_close",
    "unbind_after_close",
)

# What every series promises that hands over files of devices.
FILE_RULES = ("open_cdev", "open_group", "retrieve_twice_is_same_file", "finish_when_not_bound")

# Ticks that are late are no error here: an emulated machine that takes a thousand frames a second
# has its interrupts delayed now and then. Whether they go on is asked by guest_ticks.
_guest_content = guest_checks.no_errors("memory", "counter", "msr")

CLAIMS = (
    checks.live_update(taint=TAINT),
    Claim(
        "DMA continues through the kexec",
        "The device keeps writing into the guest's memory: while it is preserved, and through"
        " shutdown, kexec and boot.",
        frame_checks.WRITES_ON,
        said.GOES_ON,
    ),
    Claim(
        "no frame lost, repeated or damaged",
        "No frame is lost, duplicated or damaged.",
        (
            frame_checks.HOST_SAW_ALL,
            frame_checks.DEVICE_COUNTED_ALL,
            Check("guest_saw_all", "Did the guest see every frame once?", _guest_saw_all),
            Check(
                "ring_went_round",
                "Was the ring refilled and reused?",
                frame_checks.went_round("guest.frames"),
                timed=True,
            ),
        ),
        said.NONE_LOST,
    ),
    Claim(
        "no reset, no loss of mastering, no D3",
        "The device is never reset, never loses bus mastering, never leaves D0.",
        frame_checks.LEFT_ALONE,
        said.LEFT_ALONE,
    ),
    Claim(
        "same place, registers and ring",
        "It is the same device: same address, same registers, further along in the same ring.",
        (
            DEVICE_RETRIEVED,
            SAME_PLACE,
            *frame_checks.SAME_DEVICE,
            LANDS_AFTER,
            INTERRUPTS_ARRIVE,
            IDLE_WHEN_CLOSED,
            LET_GO,
            unpinned(),
        ),
        said.SAME_DEVICE,
    ),
    Claim(
        "same physical pages under the device",
        "The memory is the same physical pages, which a device without IOMMU depends on.",
        (
            guest_checks.RETRIEVED,
            Check("same_pages", "Are all page frame numbers unchanged?", guest_checks.same_pages),
            Check(
                "pinned_until_finish",
                "Is every folio of it pinned from retrieve to FINISH?",
                _pinned,
            ),
            Check("iommufd_agrees", "Do the page tables agree with iommufd?", _page_tables_agree),
        ),
        said.UNMOVED,
    ),
    Claim(
        "the guest finds no other fault",
        "The guest that owns the memory resumes, and finds all that the device did not write"
        " unchanged.",
        (
            Check("ram_size", "Is the memfd the same size as before?", guest_checks.ram_size),
            Check(
                "ram_equal",
                "Is every page that the device did not write identical?",
                guest_checks.ram_equal,
            ),
            guest_checks.REGISTERS,
            guest_checks.VECTOR_STATE,
            guest_checks.COUNTER,
            guest_checks.STATE_TAKEN,
            Check(
                "guest_content",
                "Did the guest find no errors?",
                guest_checks.each_vcpu(_guest_content),
            ),
            guest_checks.GUEST_TICKS,
            guest_checks.GUEST_GAP,
            guest_checks.GUEST_NEVER_STILL,
            guest_checks.GUEST_CLOCK,
        ),
    ),
    Claim(
        "a device not preserved falls silent",
        "Preservation is selective: a second, unpreserved device of the same type stops DMA at"
        " the kexec.",
        (frame_checks.OTHER_SILENT,),
    ),
    Claim(
        "refusals and aborts disturb nothing",
        "Whatever could disturb the device is refused, and an abort leaves it as it was.",
        (
            Check(
                "file_rules",
                "Can the device's file be had by its token only, and is FINISH refused until then?",
                results_ok(INCOMING, FILE_RULES),
            ),
            Check(
                "outgoing_rules",
                "Does each misuse return the right errno while frames keep arriving?",
                results_ok(OUTGOING, OUTGOING_RULES),
                timed=True,
                but=_wrong_errno(OUTGOING),
            ),
            Check(
                "nothing_taken_away",
                "Is a device, or its port, that others take away meanwhile either kept or not"
                " preserved?",
                _nothing_taken_away,
            ),
            Check(
                "incoming_rules",
                "Does each misuse return the right errno while frames keep arriving?",
                results_ok(INCOMING, INCOMING_RULES),
                timed=True,
                but=_wrong_errno(INCOMING),
            ),
            frame_checks.aborts_unnoticed(_aborts),
            checks.FINISHED,
        ),
        said.ABORTS,
    ),
)

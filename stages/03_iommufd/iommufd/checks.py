# SPDX-License-Identifier: GPL-2.0-only
"""Stage 3's claims and the questions to the record that show them. Pure functions of a Trial."""

from __future__ import annotations

import re
from collections.abc import Callable

from common.checks import live_update as checks
from common.checks.live_update import INCOMING, OUTGOING, facts_are, no_data, outcome, results_ok
from common.checks.model import Check, Claim, Outcome, Said
from common.dma import checks as frame_checks
from common.dma import said
from common.dma.evidence import BUS_MASTER, frames_of
from common.dma.igb import DEVICE, OTHER
from common.guest.checks import both
from common.record.evidence import Trial
from iommufd.evidence import Table, TranslationEvidence
from iommufd.interrupts import REMAPPING_ON, REQUESTS_BLOCKED
from iommufd.looks import faults, snapshot, snapshots, tables, translation_of
from iommufd.released import RELEASED

PAGE = 4096
_LARGE = 2 << 20
PROBE_FRAMES = 50
"""So many frames have to fault, and then to land, at least."""


def _never_off(trial: Trial) -> Outcome:
    enables = translation_of(trial).enables
    if not enables:
        return no_data("no vtd_dmar_enable in qemu-trace.log", expected="one enable")
    return outcome(
        [on for _, on in enables] == [True] and enables[0][0] < 0,
        expected="one enable, before the kexec, and no disable in the machine's lifetime",
        seen=", ".join(f"{'enable' if on else 'disable'} at {ms:+.0f} ms" for ms, on in enables),
        evidence="qemu-trace.log, vtd_dmar_enable; times from 'Starting new kernel'",
    )


def _one_handover(trial: Trial) -> Outcome:
    """One root table is set at boot, one after the host let the outgoing kernel go; no more."""
    translation = translation_of(trial)
    roots, incoming = translation.roots, translation.incoming
    left = trial.seen(TranslationEvidence).left_ms
    if not roots or incoming is None or left is None:
        return no_data("vtd_reg_dmar_root in qemu-trace.log", expected="two root tables")
    return outcome(
        len(roots) == 2 and roots[0][0] < left < roots[1][0] < incoming,
        expected="one at boot, one just before the incoming kernel (its first line at"
        f" {incoming:+.0f} ms), none by that",
        seen=", ".join(f"{root} at {ms:+.0f} ms" for ms, root in roots),
        evidence="qemu-trace.log, vtd_reg_dmar_root; times from 'Starting new kernel'",
    )


def _root_taken_over(trial: Trial) -> Outcome:
    """The incoming kernel goes on with the table that was handed over, under every look."""
    roots = translation_of(trial).roots
    looks = [snapshot(trial, when) for when in snapshots(trial)[1:]]
    if len(roots) < 2 or None in looks:
        return no_data("tables.json, vtd_reg_dmar_root", expected="the handed over root table")
    found = [f"{look.when} {look.root}" for look in looks if look]
    entries = [tables(trial, when) for when in snapshots(trial)[1:]]
    return outcome(
        all(look and look.root == roots[1][1] for look in looks) and None not in entries,
        expected=f"root table {roots[1][1]}, with an entry for {DEVICE}",
        seen=", ".join(found) + ("" if None not in entries else ", without one"),
        evidence="tables.json, read in the machine's RAM",
    )


def _same_entry(trial: Trial) -> Outcome:
    found = [tables(trial, when) for when in snapshots(trial)]
    seen = [_entry(table) for table in found]
    if found[0] is None:
        return no_data("tables.json, outgoing", expected="the same context entry")
    return outcome(
        all(one == seen[0] for one in seen),
        expected=f"{seen[0]} in all of {', '.join(snapshots(trial))}",
        seen="the same"
        if all(one == seen[0] for one in seen)
        else "; ".join(f"{when}: {one}" for when, one in zip(snapshots(trial), seen, strict=True)),
        evidence="tables.json, read in the machine's RAM",
    )


def _entry(one: Table | None) -> str:
    if one is None:
        return "no entry"
    return f"entry {one.context_entry}, domain {one.domain}, table {one.top}"


def _same_table(trial: Trial) -> Outcome:
    """Pages of the page table by address and content."""
    found = [tables(trial, when) for when in snapshots(trial)]
    first = found[0]
    if first is None:
        return no_data("tables.json, outgoing", expected="the same page table")
    seen = [(table.pages, table.sha256) if table else None for table in found]
    differ = [
        when
        for when, one in zip(snapshots(trial), seen, strict=True)
        if one != seen[0] or one is None
    ]
    return outcome(
        not differ,
        expected=f"{len(first.pages)} pages, sha256 {first.sha256[:16]}, in all of"
        f" {', '.join(snapshots(trial))}",
        seen=f"another in {', '.join(differ)}" if differ else "the same pages, the same content",
        evidence="tables.json, read in the machine's RAM",
    )


def _above_ram(trial: Trial) -> Outcome:
    """No IOVA that the device may use is the address of anything."""
    look, table, side = snapshot(trial, "outgoing"), tables(trial, "outgoing"), trial.side(OUTGOING)
    text = side.facts.get("device.registers", "") if side else ""
    match = re.search(r"rdbal=([0-9a-f]+) rdbah=([0-9a-f]+)", text)
    if look is None or table is None or table.lowest is None or match is None:
        return no_data("tables.json, fact device.registers", expected="IOVAs above all RAM")
    ring = int(match[2] + match[1], 16)
    return outcome(
        min(table.lowest, ring) >= look.ram_end,
        expected=f"all at or above {look.ram_end:#x}, where RAM ends",
        seen=f"lowest IOVA mapped {table.lowest:#x}, ring register {ring:#x}",
        evidence="tables.json, fact device.registers",
    )


def unmapped_page(trial: Trial) -> int | None:
    """The address that is no IOVA, but of a page of RAM; None when no descriptor has it."""
    side = trial.side(OUTGOING)
    return side.number("unmapped.iova") if side else None


def unmapped_frames(trial: Trial) -> list[int]:
    """Numbers of the frames whose descriptors lead there."""
    side = trial.side(OUTGOING)
    text = side.facts.get("unmapped.frames", "") if side else ""
    match = re.fullmatch(r"([0-9]{1,6}) from ([0-9]{1,12}), each ([0-9]{1,12})", text)
    if match is None:
        return []
    count, first, step = map(int, match.groups())
    return [first + n * step for n in range(count)]


def _unmapped_faulted(trial: Trial) -> Outcome:
    """The trace has four events for each frame at least: QEMU writes piece by piece."""
    page, numbers = unmapped_page(trial), unmapped_frames(trial)
    if trial.setting.options["intremap"] == "1":
        numbers = numbers[::2]  # the others are interrupt requests
    frames, found = frames_of(trial), faults(trial, "proof", DEVICE)
    if page is None or not numbers or frames is None or frames.gap is None:
        return no_data("facts unmapped.*, or no gap", expected="faults in the gap")
    return outcome(
        found is not None and found.in_gap > 0 and found.count >= len(numbers),
        expected=f"faults of {DEVICE} at {page:#x} for {len(numbers)} frames, some of them in the"
        f" gap's {frames.gap.ms:.0f} ms",
        seen=f"{found.count} from {found.first[0]:+.0f} to {found.last:+.0f} ms,"
        f" {found.in_gap} in the gap; {found.first[1]}"
        if found
        else "none",
        evidence="qemu-trace.log, vtd_dmar_fault; outgoing facts unmapped.*",
    )


def _no_other_fault(trial: Trial) -> Outcome:
    frames, numbers = frames_of(trial), unmapped_frames(trial)
    if not translation_of(trial).roots or frames is None or not frames.landed:
        return no_data("no frame, or no event of the IOMMU in qemu-trace.log", expected="no fault")
    found, page = faults(trial, "proof", DEVICE), unmapped_page(trial) if numbers else None
    return outcome(
        found is None or (page is not None and page <= found.lowest <= found.highest < page + PAGE),
        expected=f"no fault of {DEVICE} as long as every frame counts"
        + (f", except at {page:#x}" if page is not None else ""),
        seen=f"{found.count}, {found.lowest:#x} to {found.highest:#x}, first at"
        f" {found.first[0]:+.0f} ms"
        if found
        else "none",
        evidence="qemu-trace.log, vtd_dmar_fault",
    )


def _reader_saw_all(trial: Trial) -> Outcome:
    frames, side = frames_of(trial), trial.side(INCOMING)
    keys = [f"reader.frames{what}" for what in ("", ".lost", ".damaged", ".missing")]
    seen = [side.facts.get(key) if side else None for key in keys]
    if frames is None or not frames.sent or None in seen:
        return no_data("facts reader.frames.*", expected="every frame once")
    never = len(unmapped_frames(trial))
    return outcome(
        seen == [str(frames.sent - never), "0", "0", str(never)],
        expected=f"{frames.sent - never} frames, none lost or damaged, {never} missing in the"
        " buffer, as their descriptors pointed elsewhere",
        seen=f"{seen[0]} frames, {seen[1]} lost, {seen[2]} damaged, {seen[3]} missing",
        evidence="incoming facts reader.frames.*, against device-sent.bin",
    )


# Late ticks are no error: stage 2 says why.
_GUEST_ERRORS = {"ram.pages_different"} | {
    f"guest.0.errors.{kind}" for kind in ("memory", "gpr", "vector", "counter", "msr")
}


def _driven(trial: Trial) -> Outcome:
    """By the program, or (set-up (b)) by a guest with the registers in its own memory. What the
    guest verifies of its RAM is asked too.
    """
    sides = both(trial)
    who = "guest" if trial.setting.options.get("guest") == "1" else "program"
    bells = [side.number("reader.doorbells") for side in sides] if sides else [None]
    if not sides or None in bells:
        return no_data("facts reader.who, reader.doorbells", expected=f"a {who} that rings")
    seen = [side.facts.get("reader.who") for side in sides]
    wrong = {
        key: value for key, value in sides[1].facts.items() if key in _GUEST_ERRORS and value != "0"
    }
    asked = sides[1].facts.keys() >= _GUEST_ERRORS
    before, after = (number or 0 for number in bells)
    return outcome(
        seen == [who, who] and 0 < before < after and not wrong and asked == (who == "guest"),
        expected=f"the {who}, on both sides" + (", its RAM as it was" if who == "guest" else ""),
        seen=f"{' and '.join(map(str, seen))}, {before} times before, {after} in the end"
        + (f"; {wrong}" if wrong else ""),
        evidence="facts reader.who, reader.doorbells, guest.*",
    )


def _in_place(trial: Trial) -> Outcome:
    """When only the memfd's own pins hold the pages; and after FINISH and a memory hog."""
    # -EAGAIN: the kernel tried to copy the pages into large ones, and they were pinned.
    wanted = {"collapse": "-11", "compacted.retrieved": "in place", "hog.status": "0"}
    return facts_are(INCOMING, wanted | {"compacted.finished": "in place"})(trial)


_canary = facts_are(INCOMING, {"canary": "changed=0 moved=0"})


def _domain_id_reserved(trial: Trial) -> Outcome:
    """Another device has a higher ID: the incoming kernel has passed over the reserved one."""
    looks = [snapshot(trial, when) for when in snapshots(trial)[1:]]
    table = tables(trial, snapshots(trial)[0])
    if table is None or None in looks:
        return no_data("tables.json", expected="no other device with its domain ID")
    others = [
        {bdf: domain for bdf, domain in look.domains.items() if bdf != DEVICE}
        for look in looks
        if look
    ]
    mine = table.domain
    return outcome(
        all(mine not in one.values() and max(one.values(), default=0) > mine for one in others),
        expected=f"{mine} only for {DEVICE}, and a higher one assigned",
        seen=", ".join(f"{bdf} has {domain}" for bdf, domain in others[-1].items()),
        evidence="tables.json, all context entries",
    )


def _pinned(trial: Trial) -> Outcome:
    """A wrong RESTORE leaves no pin; the right one pins what the live table maps."""
    side, table = trial.side(INCOMING), tables(trial, "adopted")
    keys = ("pins.before", "pins.wrong", "pins.restored")
    seen = [side.facts.get(key) if side else None for key in keys]
    if None in seen[:2] or (seen[0] == seen[1] and (seen[2] is None or table is None)):
        return no_data("facts pins.*, tables.json", expected="pins of what is mapped")
    mapped = table.mapped // 1024 if table else 0
    wanted = ["VmPin=0 VmLck=0"] * 2 + [f"VmPin={mapped} VmLck=0"]
    return outcome(
        seen == wanted,
        expected=f"{wanted[0]} before, and after wrong RESTOREs; then {wanted[2]}, as mapped",
        seen=", ".join(str(one) for one in seen),
        evidence="incoming facts pins.*, tables.json",
    )


_UNALIGNED = "2, then 0 of 2"


def _reuse_faults(trial: Trial) -> Outcome:
    """Nothing lands by a translation that is still cached, and the same addresses fault."""
    side, at_reused = trial.side(INCOMING), translation_of(trial).at_reused
    start, length = (side.number(f"reuse.{key}") if side else None for key in ("iova", "length"))
    landed, unaligned = (
        side.facts.get(f"reuse.{key}") if side else None for key in ("landed", "unaligned")
    )
    if start is None or length is None or landed is None or at_reused is None or not unaligned:
        return no_data("facts reuse.*, unmap.first", expected="faults, and no frame")
    none, _, of = landed.partition(" of ")
    where, gone = f"{start:#x}-{start + length - 1:#x}", none == "0" and unaligned == _UNALIGNED
    return outcome(
        gone and int(of) > 0 and at_reused >= int(of),
        expected=f"none of {of} frames where the device had written just before the unmap, and"
        f" faults in {where}; in the second page of an unaligned pair {_UNALIGNED}",
        seen=f"{landed} frames landed, {at_reused} faults there; {unaligned}"
        + ("" if gone else ": a translation outlived its unmap"),
        evidence="incoming facts reuse.*; qemu-trace.log, vtd_dmar_fault",
    )


def _unmap_faults(trial: Trial) -> Outcome:
    """The frames fault, each in what was unmapped; the host sees the entries gone."""
    side, found = trial.side(INCOMING), faults(trial, "unmapped", DEVICE)
    before, after = tables(trial, "finished"), tables(trial, "unmapped")
    iova = side.number("unmap.iova") if side else None
    length = side.number("unmap.length") if side else None
    if side is None or iova is None or not length or before is None or after is None:
        return no_data("facts unmap.*, tables.json", expected="faults")
    missing, gone = side.facts.get("unmap.missing"), before.mapped - after.mapped
    some, _, of = (missing or "").partition(" of ")
    inside = found and iova <= found.lowest <= found.highest < iova + length
    where = f"{iova:#x}-{iova + length - 1:#x}"
    return outcome(
        bool(inside and gone == length and after.top == before.top)
        and some == of
        and int(some) >= PROBE_FRAMES
        and side.facts.get("unmap") == "0",
        expected=f"{length} bytes gone from the live table, each of the next {PROBE_FRAMES} frames"
        f" or more missing, faults in {where} and nowhere else",
        seen=f"{gone} bytes gone, {missing} frames missing, "
        + (
            f"{found.count} faults in {found.lowest:#x}-{found.highest:#x}" if found else "no fault"
        ),
        evidence="qemu-trace.log, vtd_dmar_fault; tables.json; facts unmap.*",
    )


def _map_lands(trial: Trial) -> Outcome:
    """Where it was mapped before; and a page that may only be read, and a large one, are mapped as
    such. Without memory in one piece (fact map.large) small pages stand for the large one.
    """
    side, found = trial.side(INCOMING), faults(trial, "mapped", DEVICE)
    before, after = tables(trial, "finished"), tables(trial, "mapped")
    if side is None or "map.landing" not in side.facts or before is None or after is None:
        return no_data("facts map.*, tables.json", expected="frames land again")
    landed = side.number("map.landed")
    large = _LARGE if side.facts.get("map.large") == "0" else 0
    wanted = (before.mapped + PAGE + _LARGE, before.read_only + PAGE, before.large + large)
    seen = (after.mapped, after.read_only, after.large)
    otherwise = side.facts.get("map.otherwise")
    return outcome(
        found is None
        and bool(landed and landed >= PROBE_FRAMES)
        and side.facts.get("map") == "0"
        and otherwise == "0 and 0"
        and seen == wanted,
        expected="{} bytes mapped, {} of them read-only, {} in large pages".format(*wanted)
        + f"; {PROBE_FRAMES} frames landed, no fault",
        seen="{} bytes mapped, {}, {}".format(*seen)
        + f"; {landed or 0} frames landed, {found.count if found else 0} faults; a large page and a"
        f" read-only one: {otherwise}",
        evidence="facts map.*, tables.json, qemu-trace.log",
    )


def _other_blocked(trial: Trial) -> Outcome:
    """Its bus mastering is off, so that it does not even fault; turned on by hand, it does."""
    side, found = trial.side(INCOMING), faults(trial, "proof", OTHER)
    command = side.number("other.command") if side else None
    # After this the workload turns it on; what it says of that reaches the host later.
    booted = side.stamps.get("await.snapshot-booted") if side else None
    if command is None or booted is None or not trial.console.kexecs:
        return no_data("fact other.command", expected="bus mastering off, then faults")
    by_hand = (booted - trial.console.kexecs[0]) / 1e6
    return outcome(
        not command & BUS_MASTER and found is not None and found.first[0] >= by_hand,
        expected=f"bus mastering off, and faults of {OTHER} when it is turned on by hand, after"
        f" {by_hand:+.0f} ms",
        seen=f"PCI_COMMAND {command:#x}, "
        + (f"{found.count} faults, first at {found.first[0]:+.0f} ms" if found else "none"),
        evidence="incoming fact other.command; qemu-trace.log, vtd_dmar_fault",
    )


def _wrong_errno(side: str) -> Callable[[Trial], bool]:
    """Some misuse returned what it must not while the device went on: rule.NAME says no more."""

    def ask(trial: Trial) -> bool:
        spoken = trial.side(side)
        rules = [v for k, v in (spoken.facts if spoken else {}).items() if k.startswith("rule.")]
        return any(re.fullmatch(r"-?[0-9]+", text) for text in rules)

    return ask


def landed_by_cache(trial: Trial) -> bool:
    """Frames landed by a translation whose mapping is gone."""
    side = trial.side(INCOMING)
    landed = side.facts.get("reuse.landed", "0 ") if side else "0 "
    return bool(side and side.facts.get("reuse.unmap") == "0" and not landed.startswith("0 "))


def _still_mapped(trial: Trial) -> bool:
    """The host finds nothing gone from the table."""
    before, after = tables(trial, "finished"), tables(trial, "unmapped")
    return bool(before and after and before.mapped == after.mapped)


def _aborts(trial: Trial) -> Outcome:
    side, times = trial.side(OUTGOING), trial.setting.options["aborts"]
    wanted, seen = f"{times} times, 0 silent", side.facts.get("aborts.closed") if side else None
    left = frame_checks.aborted(trial)
    if seen is None or left is None:
        return no_data("facts aborts.*", expected=wanted)
    return outcome(
        seen == wanted and times != "0" and left.nothing,
        expected=f"session closed {wanted}, nothing is left of it",
        seen=f"{seen}; {left.said}",
        evidence="outgoing facts aborts.*; kho.json",
    )


_FROZEN = ("attach_another_hwpt", "map", "unmap", "copy", "detach", "destroy")
# The errno of each stands beside its test in workload/rules.c.
OUTGOING_RULES = (
    "preserve_unmarked",
    "mark_with_token_0",
    "mark_an_ioas",
    "preserve_device_of_another_hwpt",
    "map_where_interrupts_are",
    "mark_again",
    "mark_with_token_in_use",
    "preserve_with_anonymous_memory",
    "map_more_than_may_be_locked",
    "map_often_what_may_be_locked",
    "preserve_with_read_only_memory",
    "preserve_with_memory_elsewhere",
    "preserve_with_the_first_page_lost",
    "preserve_with_a_page_lost",
    "preserve_with_the_last_page_lost",
    "preserve_second_device",
    "kexec_with_a_device_asleep",
    "unmap_after_refused_kexec",
    "preserve_device_before_iommufd",
    "mark_when_preserved",
    *_FROZEN,
)
INCOMING_RULES = (
    "driver_without_override",
    "open_cdev",
    "bind_to_another_iommufd",
    "finish_when_not_restored",
    "attach_an_ioas",
    "attach_a_new_hwpt",
    "restore_with_nothing_mapped",
    "restore_unknown_token",
    "restore_with_an_area_missing",
    "restore_with_half_an_area",
    "restore_with_an_area_twice",
    "restore_with_an_area_a_page_off",
    "restore_with_an_area_read_only",
    "restore_with_a_read_only_area_writeable",
    "restore_with_another_file",
    "restore_with_an_area_more",
    "restore_with_memory_of_the_process",
    "restore_with_the_next_page_in_place_of_another",
    "restore_more_than_may_be_locked",
    "restore_often_what_may_be_locked",
    "restore_to_read_only_memory",
    "unmap_after_restore_to_read_only_memory",
    "restore_after_refusals",
    "restore_twice",
    "finish_when_not_attached",
    *_FROZEN,
    "preserve_after_finish",
    "map_where_interrupts_are",
)

STAYS_ON = (
    Check("never_off", "Was translation enabled once and never disabled?", _never_off),
    Check("one_handover", "Was the root table switched once, at the end?", _one_handover),
)
OTHER_BLOCKED = Check(
    "other_blocked", "Does it fault with bus mastering forced on?", _other_blocked
)
NO_OTHER_FAULT = Check("no_other_fault", "Did nothing else fault?", _no_other_fault)
TAKEN_OVER = (
    Check("root_taken_over", "Is the root table the one that was handed over?", _root_taken_over),
    Check("same_entry", "Are context entry and domain ID unchanged?", _same_entry),
    Check("same_table", "Is the page table unchanged, page by page?", _same_table),
    Check(
        "domain_id_reserved",
        "Is its domain ID assigned to no other device?",
        _domain_id_reserved,
    ),
)
INTERRUPTS = Claim(
    "the device injects no interrupt",
    "The device can be made to request interrupts, which no page table prevents; while one kernel"
    " ends and the next one begins, each request is blocked.",
    (REMAPPING_ON, REQUESTS_BLOCKED),
)
CLAIMS = (
    checks.live_update(),
    Claim(
        "DMA continues through the kexec",
        "The device keeps writing into memory: while it is preserved, and through shutdown, kexec"
        " and boot.",
        frame_checks.WRITES_ON,
        said.GOES_ON,
    ),
    Claim(
        "no frame lost, repeated or damaged",
        "No frame is lost, duplicated or damaged.",
        (
            Check(
                "host_saw_all",
                "Did the host see every frame land once?",
                frame_checks.host_saw_all(but=unmapped_frames),
            ),
            frame_checks.DEVICE_COUNTED_ALL,
            Check("reader_saw_all", "Did the reader see every frame once?", _reader_saw_all),
            Check(
                "ring_went_round",
                "Was the ring refilled and reused?",
                frame_checks.went_round("reader.frames"),
                timed=True,
            ),
            Check(
                "driven",
                "Did the device's owner advance its tail on both sides?",
                _driven,
                timed=True,
            ),
        ),
        said.NONE_LOST,
    ),
    Claim(
        "translation never off",
        "Translation stays on throughout, and a frame can arrive only through it.",
        (
            *STAYS_ON,
            Check("above_ram", "Is every IOVA above all RAM?", _above_ram),
            Check(
                "unmapped_faulted",
                "Did unmapped descriptors fault in the gap?",
                _unmapped_faulted,
                timed=True,
            ),
            Check("canary", "Is the page at their address unchanged?", _canary),
            NO_OTHER_FAULT,
        ),
        (*said.STAYS_ON, Said(r"the page is unchanged", ("canary",))),
    ),
    INTERRUPTS,
    Claim(
        "the same tables, taken over in place",
        "The incoming kernel takes over the same tables: root, context entry, domain ID, page"
        " table.",
        TAKEN_OVER,
        said.TAKEN_OVER,
    ),
    Claim(
        "no reset, no D3; the same device",
        "The device is never reset, never loses bus mastering, never leaves D0; it is the same"
        " device.",
        (
            *frame_checks.LEFT_ALONE,
            Check(
                "device_retrieved",
                "Were memory, iommufd and device retrieved and attached?",
                facts_are(
                    INCOMING,
                    {
                        "retrieve.session": "0",
                        "retrieve.ram": "0",
                        "retrieve.canary": "0",
                        "retrieve.iommufd": "0",
                        "retrieve.device": "0",
                        "bind.device": "0",
                        "restore.hwpt": "0",
                        "attach.device": "0",
                    },
                ),
            ),
            *frame_checks.SAME_DEVICE,
        ),
        said.LEFT_ALONE,
    ),
    Claim(
        "the iommufd maps and unmaps again",
        "Userspace has a working iommufd: what it unmaps faults, what it maps receives DMA.",
        (
            Check(
                "reuse_faults",
                "Do frames fault at once where memory in use was just unmapped?",
                _reuse_faults,
                timed=True,
                but=landed_by_cache,
            ),
            Check(
                "unmap_faults",
                "Do frames fault where it unmapped memory?",
                _unmap_faults,
                timed=True,
                but=_still_mapped,
            ),
            Check("map_lands", "Do frames land where it mapped memory?", _map_lands, timed=True),
            Check("pinned", "Is exactly what is mapped pinned, and nothing before that?", _pinned),
            Check(
                "pages_in_place",
                "Did compaction and a memory hog leave every page in place?",
                _in_place,
            ),
        ),
        (
            Said(r"in which it can map and unmap", ("unmap_faults", "map_lands")),
            Said(r"no page of the memfd moved when memory was compacted", ("pages_in_place",)),
        ),
    ),
    RELEASED,
    Claim(
        "a device not preserved is blocked",
        "Preservation is selective: a second, unpreserved device of the same type is blocked.",
        (
            frame_checks.OTHER_SILENT,
            OTHER_BLOCKED,
        ),
    ),
    Claim(
        "refusals and aborts disturb nothing",
        "Whatever could disturb the device is refused, and an abort leaves it as it was.",
        (
            Check(
                "outgoing_rules",
                "Does each misuse return the right errno while frames keep arriving?",
                results_ok(OUTGOING, OUTGOING_RULES),
                timed=True,
                but=_wrong_errno(OUTGOING),
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

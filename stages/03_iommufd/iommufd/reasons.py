# SPDX-License-Identifier: GPL-2.0-only
"""What shows that a control of stage 3 failed for its own reason: pure functions of a Trial."""

from __future__ import annotations

import re
from collections.abc import Callable

from common.checks.live_update import INCOMING, OUTGOING, no_data, outcome
from common.checks.model import Outcome
from common.dma.igb import DEVICE
from common.record.evidence import Trial
from iommufd.checks import PAGE, landed_by_cache, unmapped_page
from iommufd.evidence import TranslationEvidence
from iommufd.interrupts import HANDED_OVER, remapping_of
from iommufd.looks import faults, snapshot, tables, translation_of


def turned_off(trial: Trial) -> Outcome:
    """QEMU saw translation disabled between the end of one kernel and the start of the next."""
    enables = translation_of(trial).enables
    if not enables:
        return no_data("no vtd_dmar_enable in qemu-trace.log", expected="a disable")
    off = [ms for ms, on in enables if not on]
    return outcome(
        bool(off),
        expected="translation disabled",
        seen=f"translation disabled at {off[0]:+.0f} ms" if off else "never disabled",
        evidence="qemu-trace.log, vtd_dmar_enable",
    )


def remapping_turned_off(*, by: str) -> Callable[[Trial], Outcome]:
    """QEMU saw interrupt remapping disabled by the outgoing or the incoming kernel."""

    def ask(trial: Trial) -> Outcome:
        incoming, found = translation_of(trial).incoming, remapping_of(trial).enables
        left = trial.seen(TranslationEvidence).left_ms
        if incoming is None or left is None or not found:
            return no_data("vtd_ir_enable in qemu-trace.log, or no kexec", expected="a disable")
        off = [ms for ms, on in found if not on and ms > left]
        return outcome(
            bool(off) and (off[0] > incoming) == (by == "incoming"),
            expected=f"interrupt remapping disabled by the {by} kernel",
            seen=f"disabled at {off[0]:+.0f} ms, the incoming kernel's first line at"
            f" {incoming:+.0f} ms"
            if off
            else "never disabled",
            evidence="qemu-trace.log, vtd_ir_enable",
        )

    return ask


def no_table_between(trial: Trial) -> Outcome:
    """The IOMMU was given no table of a page, which is what an outgoing kernel hands over."""
    if translation_of(trial).incoming is None:
        return no_data("no kexec", expected="no table set")
    between = [table for _, table, size in remapping_of(trial).tables if size <= HANDED_OVER]
    return outcome(
        not between,
        expected="no interrupt remapping table set by the outgoing kernel as it ends",
        seen=", ".join(between) or "none",
        evidence="qemu-trace.log, vtd_reg_ir_root",
    )


def untold_faults(trial: Trial) -> Outcome:
    """It faulted at the page of RAM of which nobody said that it would."""
    page, found = unmapped_page(trial), faults(trial, "proof", DEVICE)
    if page is None or found is None:
        return no_data("fact unmapped.iova, vtd_dmar_fault", expected="faults")
    return outcome(
        page <= found.lowest <= found.highest < page + PAGE,
        expected=f"faults at {page:#x}, and nowhere else",
        seen=f"{found.count} faults, {found.lowest:#x} to {found.highest:#x}",
        evidence="qemu-trace.log, vtd_dmar_fault; outgoing fact unmapped.iova",
    )


def canary_overwritten(trial: Trial) -> Outcome:
    side = trial.side(INCOMING)
    seen = side.facts.get("canary") if side else None
    if seen is None:
        return no_data("fact canary", expected="bytes of the page changed")
    return outcome(
        not seen.startswith("changed=0 ") and seen.endswith(" moved=0"),
        expected="bytes of the page changed, where it was",
        seen=seen,
        evidence="incoming fact canary",
    )


def stopped_by_finish(trial: Trial) -> Outcome:
    """FINISH was accepted, reset the device, and left its place in the IOMMU to another table."""
    side, after = trial.side(INCOMING), tables(trial, "finished")
    before, resets = tables(trial, "booted"), trial.seen(TranslationEvidence).trace.resets
    if side is None or before is None or snapshot(trial, "finished") is None:
        return no_data("tables.json", expected="another table after FINISH")
    return outcome(
        side.facts.get("finish") == "0"
        and any(entry.ms > 0 for entry in resets)
        and (after is None or after.top != before.top),
        expected=f"FINISH accepted, device reset, table {before.top} gone",
        seen=f"finish={side.facts.get('finish')}, "
        + (f"{resets[-1].text} at {resets[-1].ms:+.0f} ms" if resets else "no reset")
        + f", table {after.top if after else 'none'}",
        evidence="incoming fact finish; qemu-trace.log; tables.json",
    )


def translated_no_more(trial: Trial) -> Outcome:
    """The old kernel's table is not the device's any more as soon as the process is dead."""
    before, after = tables(trial, "booted"), tables(trial, "discarded")
    if before is None or snapshot(trial, "discarded") is None:
        return no_data("tables.json", expected="another table, or none")
    return outcome(
        after is None or after.top != before.top,
        expected=f"table {before.top} gone",
        seen=f"table {after.top if after else 'none'}",
        evidence="tables.json",
    )


def tail_left(trial: Trial) -> Outcome:
    sides = [trial.side(OUTGOING), trial.side(INCOMING)]
    bells = [side.number("reader.doorbells") if side else None for side in sides]
    if None in bells:
        return no_data("facts reader.doorbells", expected="as many on both sides")
    return outcome(
        bells[0] == bells[1],
        expected="as many doorbells in the end as before the kexec",
        seen=f"{bells[0]}, then {bells[1]}",
        evidence="facts reader.doorbells",
    )


def given_away(trial: Trial) -> Outcome:
    look, table = snapshot(trial, "booted"), tables(trial, "outgoing")
    if look is None or table is None:
        return no_data("tables.json", expected="its domain ID twice")
    others = [bdf for bdf, domain in look.domains.items() if domain == table.domain]
    return outcome(
        len(others) > 1,
        expected=f"domain ID {table.domain} for another device too",
        seen=", ".join(others),
        evidence="tables.json, booted",
    )


def iova_in_ram(trial: Trial) -> Outcome:
    look, table = snapshot(trial, "outgoing"), tables(trial, "outgoing")
    if look is None or table is None or table.lowest is None:
        return no_data("tables.json", expected="an IOVA below the end of RAM")
    return outcome(
        table.lowest < look.ram_end,
        expected=f"an IOVA below {look.ram_end:#x}",
        seen=f"{table.lowest:#x}",
        evidence="tables.json",
    )


def still_mapped(trial: Trial) -> Outcome:
    before, after = tables(trial, "finished"), tables(trial, "unmapped")
    if before is None or after is None:
        return no_data("tables.json", expected="the same table")
    return outcome(
        before.sha256 == after.sha256,
        expected="the page table as before",
        seen="the same" if before.sha256 == after.sha256 else "another",
        evidence="tables.json",
    )


def cache_was_stale(trial: Trial) -> Outcome:
    """Frames landed where the host sees nothing mapped any more."""
    side = trial.side(INCOMING)
    landed = side.facts.get("reuse.landed") if side else None
    if side is None or landed is None:
        return no_data("fact reuse.landed", expected="frames that landed")
    return outcome(
        landed_by_cache(trial),
        expected="an unmap that was accepted, and frames that landed after it",
        seen=f"unmap {side.facts.get('reuse.unmap')}, {landed} landed",
        evidence="incoming facts reuse.*",
    )


def goes_on_faulting(trial: Trial) -> Outcome:
    found = faults(trial, "mapped", DEVICE)
    return outcome(
        found is not None,
        expected="faults after the time of the map",
        seen=f"{found.count}" if found else "none",
        evidence="qemu-trace.log, vtd_dmar_fault",
    )


def still_there(trial: Trial) -> Outcome:
    """The host found the device's page table at the very end."""
    after = tables(trial, "released")
    if snapshot(trial, "released") is None:
        return no_data("tables.json, released", expected="its page table")
    return outcome(
        after is not None and after.mapped > 0,
        expected="its page table in the end, with memory mapped",
        seen=f"{after.mapped if after else 0} bytes mapped",
        evidence="tables.json, released",
    )


def other_left_alone(trial: Trial) -> Outcome:
    side = trial.side(INCOMING)
    if side is None:
        return no_data("incoming side has no output", expected="bus mastering not touched")
    return outcome(
        "other.command" not in side.facts,
        expected="bus mastering not touched",
        seen=side.facts.get("other.command", "not touched"),
        evidence="incoming facts",
    )


def replaced(trial: Trial) -> Outcome:
    """The host found another context entry, and the device has been faulting."""
    before, after = tables(trial, "outgoing"), tables(trial, "booted")
    found = faults(trial, "proof", DEVICE)
    if before is None or after is None:
        return no_data("tables.json", expected="another page table")
    return outcome(
        after.top != before.top and after.domain != before.domain and found is not None,
        expected=f"another domain ID than {before.domain}, another table than {before.top},"
        " and faults",
        seen=f"domain {after.domain}, table {after.top}, "
        + (f"{found.count} faults from {found.first[0]:+.0f} ms on" if found else "no fault"),
        evidence="tables.json; qemu-trace.log, vtd_dmar_fault",
    )


def all_noticed(trial: Trial) -> Outcome:
    """The panic's words: as many bits and sizes were noticed as were tried."""
    fatal = " ".join(splat.text for splat in trial.console.splats if splat.fatal)
    found = re.search(r"noticed (\d+) of (\d+) bits that changed, (\d+) of (\d+) sizes", fatal)
    bits, all_bits, sizes, all_sizes = map(int, found.groups()) if found else (0, 0, 0, 0)
    return outcome(
        0 < bits == all_bits and 0 < sizes == all_sizes,
        expected="all bits and all sizes noticed",
        seen=found[0] if found else fatal or "no panic",
        evidence="console.log",
    )

# SPDX-License-Identifier: GPL-2.0-only
"""Checks of how a device that was taken over is released. Pure functions of a Trial.

workload/release.c detaches it while the host sends, destroys HWPT and IOAS, and closes it.
"""

from __future__ import annotations

from common.checks.live_update import INCOMING, no_data, outcome
from common.checks.model import Check, Claim, Outcome
from common.dma.after import IDLE_WHEN_CLOSED, INTERRUPTS_ARRIVE, LET_GO, unpinned
from common.dma.igb import DEVICE
from common.record.evidence import Trial
from iommufd.looks import faults, snapshot, tables

_RELEASED = ("hwpt", "unmap", "ioas", "open", "unbind")
_UNPINNED = "VmPin=0 VmLck=0"


def _tables_at_boot(trial: Trial) -> int:
    """The handover root, and the context table of the one bus that has preserved devices (03/0006);
    the interrupt remapping table without entries (03/0024)."""
    return 2 + int(trial.setting.options["intremap"])


def _detached_blocked(trial: Trial) -> Outcome:
    """No entry for it in the IOMMU's own tables, no frame in its ring, and what is sent faults."""
    side, look = trial.side(INCOMING), snapshot(trial, "detached")
    landed = side.number("release.frames") if side else None
    expected = f"no translation for {DEVICE}, no frame, faults"
    if landed is None or look is None:
        return no_data("tables.json, detached; fact release.frames", expected=expected)
    found = faults(trial, "detached", DEVICE)
    return outcome(
        look.device is None and landed == 0 and found is not None,
        expected=expected,
        seen=f"{f'table {look.device.top}' if look.device else 'no translation'}, {landed} frames,"
        f" {found.count if found else 0} faults",
        evidence="tables.json; incoming fact release.frames; qemu-trace.log, vtd_dmar_fault",
    )


def _faults_reported(trial: Trial) -> Outcome:
    """What faults while the device is detached, the IOMMU tells the kernel of by an interrupt."""
    side, found = trial.side(INCOMING), faults(trial, "detached", DEVICE)
    before, after = (
        side.number(f"faults.{when}") if side else None for when in ("before", "after")
    )
    if before is None or after is None or found is None:
        return no_data("facts faults.*; qemu-trace.log, vtd_dmar_fault", expected="interrupts")
    return outcome(
        after > before,
        expected=f"interrupts of the IOMMU, as {found.count} accesses faulted",
        seen=f"{after - before}, after {before} until then",
        evidence="incoming facts faults.* (/proc/interrupts, dmar0)",
    )


def _own_domain_again(trial: Trial) -> Outcome:
    """A driver that came now would find its DMA translated, as if there had been no user."""
    look, before = snapshot(trial, "released"), tables(trial, "adopted")
    if look is None or before is None:
        return no_data("tables.json, released", expected="a page table of its own")
    found = look.device
    return outcome(
        found is not None and found.top != before.top and found.mapped == 0,
        expected=f"another page table than {before.top}, with nothing mapped",
        seen=f"{found.top}, {found.mapped} bytes mapped" if found else "no translation",
        evidence="tables.json, released, read in the machine's RAM",
    )


def _led_somewhere(trial: Trial) -> bool:
    """It has a table, or frames landed: not the host's doing."""
    side, look = trial.side(INCOMING), snapshot(trial, "detached")
    landed = side.number("release.frames") if side else None
    return bool((look and look.device) or landed)


def _all_given_back(trial: Trial) -> Outcome:
    """The kernel counts as many pages less as the host saw in the device's page table then.

    Which of them the last unmap gave back, and which came with a map after that, is all one.
    """
    side, table = trial.side(INCOMING), tables(trial, "adopted")
    adopted, released = (
        side.number(f"iommu_pages.{when}") if side else None for when in ("adopted", "released")
    )
    secondary = [
        side.number(f"secondary_pages.{when}") if side else None for when in ("adopted", "released")
    ]
    if side is None or table is None or adopted is None or released is None or None in secondary:
        return no_data("facts iommu_pages.*, tables.json", expected="all given back")
    said = {key: side.facts.get(f"release.{key}") for key in _RELEASED}
    pins = side.facts.get("pins.released")
    freed, wanted = len(table.pages), dict.fromkeys(_RELEASED, "0")
    return outcome(
        said == wanted
        and pins == _UNPINNED
        and adopted - released == freed
        and secondary == [adopted, released],
        expected=f"HWPT and IOAS destroyed, {_UNPINNED}, {freed} fewer pages of tables, all of them"
        " secondary page tables, the device opened again",
        seen=", ".join(f"{key}={value}" for key, value in said.items())
        + f", {pins}, {adopted - released} fewer pages: {adopted}, then {released}; secondary"
        f" {secondary[0]}, then {secondary[1]}",
        evidence="incoming facts release.*, pins.released, iommu_pages.*; tables.json",
    )


RELEASED = Claim(
    "all of it can be released",
    "The device ends like any other: once detached, its DMA is blocked; page tables, pins and the"
    " device itself are released.",
    (
        Check(
            "detached_blocked",
            "Does nothing land once it is detached?",
            _detached_blocked,
            timed=True,
            but=_led_somewhere,
        ),
        Check(
            "faults_reported",
            "Is the incoming kernel told of these faults?",
            _faults_reported,
            timed=True,
        ),
        Check(
            "all_given_back",
            "Are page tables and pins given back, and can it be opened again?",
            _all_given_back,
        ),
        INTERRUPTS_ARRIVE,
        IDLE_WHEN_CLOSED,
        Check(
            "own_domain_again",
            "Does its own, empty page table translate for it when it is closed?",
            _own_domain_again,
        ),
        LET_GO,
        unpinned(_tables_at_boot),
    ),
)

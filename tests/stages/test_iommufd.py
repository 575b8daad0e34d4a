# SPDX-License-Identifier: GPL-2.0-only
"""Stage 3's judge, on a recorded trial and on damaged copies of it.

tests/recorded/iommufd/ holds the raw files of a real trial at 200 frames a second (see its
README). Each test edits one piece of evidence and asks whether the right check falls.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.judge.verdict import judge_trial
from common.record import console
from common.record.evidence import Trial
from common.record.stored_file import read_stamped
from common.stage.loading import load_stage
from tests.recorded_trial import RECORDED, Edit, RecordedTrial, added, fallen_checks, said

STAGE = load_stage(3)
MAIN = RECORDED / "iommufd" / "main"


@pytest.fixture
def trial(tmp_path: Path) -> Callable[..., Trial]:
    """The recorded trial, after an edit had its folder."""
    return RecordedTrial(STAGE, MAIN, tmp_path)


def fallen(trial: Trial) -> set[str]:
    return fallen_checks(trial, STAGE)


def traced(event: str, *, ms: int) -> Edit:
    """A line more in QEMU's trace, `ms` after "Starting new kernel"."""

    def edit(folder: Path) -> None:
        setting = json.loads((folder / "trial.json").read_text())
        kexec = console.parse(read_stamped(folder / "console.jsonl")).kexecs[0]
        us = (kexec + ms * 1_000_000 + setting["clock_offset_ns"]) // 1000
        path = folder / "qemu-trace.log"
        line = f"1@{us // 1_000_000}.{us % 1_000_000:06}:{event}\n"
        path.write_text(path.read_text() + line)

    return edit


def looked(when: str, **changes: Any) -> Edit:
    """Another look of the host at the device's tables; `root` is the root table."""

    def edit(folder: Path) -> None:
        looks = json.loads((folder / "tables.json").read_text())
        look = next(one for one in looks if one["when"] == when)
        for key, value in changes.items():
            (look if key in look else look["01:00.0"])[key] = value
        (folder / "tables.json").write_text(json.dumps(looks))

    return edit


def test_the_recording_passes(trial: Callable[..., Trial]) -> None:
    verdict = judge_trial(trial(), STAGE)
    assert (verdict.status, verdict.why) == ("PASS", f"{len(STAGE.checks)} checks")


@pytest.mark.parametrize(
    ("event", "ms", "checks"),
    [
        ("vtd_dmar_enable enable 0", 100, {"never_off"}),
        ("vtd_dmar_enable enable 1", 1500, {"never_off"}),
        ("vtd_reg_dmar_root addr 0x1000 scalable 0", 1500, {"one_handover"}),
        ("vtd_reg_dmar_root addr 0x1000 scalable 0", -3000, {"one_handover"}),
        ("vtd_ir_enable enable 0", 100, {"remapping_on"}),
        ("vtd_ir_enable enable 1", 1500, {"remapping_on"}),
        ("vtd_reg_ir_root addr 0x1000 size 0x100", 1500, {"remapping_on"}),
        ("vtd_dmar_fault sid 0x100 fault 5 addr 0x10000201000 write 1", 900, {"no_other_fault"}),
        ("vtd_dmar_fault sid 0x200 fault 5 addr 0x10000201000 write 1", 900, set()),
        ("pci_cfg_write igb 01:00.0 @0x4 <- 0x503", -20, {"bus_mastering_kept"}),
        ("e1000e_core_ctrl_sw_reset Doing SW reset", 900, {"no_device_reset"}),
    ],
)
def test_each_event_in_the_trace(
    trial: Callable[..., Trial], event: str, ms: int, checks: set[str]
) -> None:
    assert fallen(trial(traced(event, ms=ms))) == checks


@pytest.mark.parametrize(
    ("when", "changes", "checks"),
    [
        ("booted", {"root": "0x1000"}, {"root_taken_over"}),
        ("adopted", {"domain": 4711}, {"same_entry"}),
        ("adopted", {"context_entry": "0x0:0x0"}, {"same_entry"}),
        ("finished", {"sha256": "0" * 64}, {"same_table"}),
        ("booted", {"pages": ["0x1000"]}, {"same_table"}),
        ("refused", {"sha256": "0" * 64}, {"same_table"}),
        ("refused", {"top": "0x1000"}, {"same_entry"}),
        ("adopted", {"domains": {"01:00.0": 6, "02:00.0": 6}}, {"domain_id_reserved"}),
        ("adopted", {"domains": {"01:00.0": 6, "02:00.0": 5}}, {"domain_id_reserved"}),
        ("outgoing", {"lowest": 0x1000}, {"above_ram"}),
        ("adopted", {"mapped": 4096}, {"pinned"}),
        ("unmapped", {"mapped": 0}, {"unmap_faults"}),
        ("mapped", {"mapped": 0}, {"map_lands"}),
    ],
)
def test_each_look_at_the_tables(
    trial: Callable[..., Trial], when: str, changes: dict[str, Any], checks: set[str]
) -> None:
    assert fallen(trial(looked(when, **changes))) == checks


def test_without_looks_there_is_no_answer(trial: Callable[..., Trial]) -> None:
    def forget(folder: Path) -> None:
        (folder / "tables.json").unlink()

    assert fallen(trial(forget)) == {
        *("root_taken_over", "same_entry", "same_table", "above_ram", "domain_id_reserved"),
        *("unmap_faults", "map_lands", "pinned", "detached_blocked", "all_given_back"),
        "own_domain_again",
    }


def test_no_other_fault_without_a_frame_is_no_answer(trial: Callable[..., Trial]) -> None:
    def forget(folder: Path) -> None:
        (folder / "device-landed.bin").write_bytes(b"")

    assert "no_other_fault" in fallen(trial(forget))


def faults_moved(ms: int) -> Edit:
    """The device's faults happen `ms` later, in the trace."""

    def edit(folder: Path) -> None:
        path, lines = folder / "qemu-trace.log", []
        for line in path.read_text().splitlines():
            pid, _, rest = line.partition("@")
            stamp, _, event = rest.partition(":")
            if event.startswith("vtd_dmar_fault sid 0x100 "):
                line = f"{pid}@{float(stamp) + ms / 1000:.6f}:{event}"
            lines.append(line)
        path.write_text("\n".join(lines) + "\n")

    return edit


def without(event: str) -> Edit:
    """QEMU's trace without such events."""

    def edit(folder: Path) -> None:
        path = folder / "qemu-trace.log"
        lines = [line for line in path.read_text().splitlines() if event not in line]
        path.write_text("\n".join(lines) + "\n")

    return edit


def test_faults_that_never_came_fall(trial: Callable[..., Trial]) -> None:
    found = fallen(trial(without("vtd_dmar_fault sid 0x100 ")))
    assert found == {
        "unmapped_faulted",
        "reuse_faults",
        "unmap_faults",
        "detached_blocked",
        "faults_reported",
    }


@pytest.mark.parametrize(("sooner", "checks"), [(5, {"map_lands"}), (-5, set())])
def test_a_fault_after_the_map_is_one_until_it_is_detached(
    trial: Callable[..., Trial], sooner: int, checks: set[str]
) -> None:
    def fault(folder: Path) -> None:
        spoken = {text: t for t, text in read_stamped(folder / "dialogue.jsonl")}
        kexec = console.parse(read_stamped(folder / "console.jsonl")).kexecs[0]
        ms = (spoken["# await detaching"] - kexec) // 1_000_000 - sooner
        traced("vtd_dmar_fault sid 0x100 fault 5 addr 0x10000201000 write 1", ms=ms)(folder)

    assert fallen(trial(fault)) == checks


def delivered(address: int) -> Edit:
    """A request at this address, and what became of it, more in QEMU's trace."""

    def edit(folder: Path) -> None:
        for event in (
            f"vtd_ir_remap_msi_req addr {address:#x} data 0x2",
            f"vtd_ir_remap_msi (addr {address:#x}, data 0x2) -> (addr 0xfee01008, data 0x4031)",
        ):
            traced(event, ms=900)(folder)

    return edit


@pytest.mark.parametrize(
    ("address", "checks"),
    [
        (0xFEE80010, {"requests_blocked"}),
        (0xFEE8003C, {"requests_blocked"}),
        # In compatibility format, and of somebody else.
        (0xFEE80000, set()),
        (0xFEE00030, set()),
    ],
)
def test_an_interrupt_that_the_device_got_through_falls(
    trial: Callable[..., Trial], address: int, checks: set[str]
) -> None:
    assert fallen(trial(delivered(address))) == checks


@pytest.mark.parametrize(
    ("edit", "checks"),
    [
        (without("vtd_ir_remap_msi"), {"requests_blocked"}),
        (without("vtd_ir_enable"), {"remapping_on"}),
        (without("vtd_reg_ir_root"), {"remapping_on"}),
        (
            said("unmapped.interrupts=0xfee80000", "unmapped.interrupts=0xfee90000"),
            {"requests_blocked"},
        ),
        (said("unmapped.interrupts=", "unmapped.others="), {"requests_blocked"}),
    ],
)
def test_without_requests_or_remapping_there_is_no_pass(
    trial: Callable[..., Trial], edit: Edit, checks: set[str]
) -> None:
    assert fallen(trial(edit)) == checks


def test_faults_before_the_gap_are_none_in_it(trial: Callable[..., Trial]) -> None:
    assert "unmapped_faulted" in fallen(trial(faults_moved(-60000)))


def test_a_frame_that_was_to_be_missing_and_landed_falls(trial: Callable[..., Trial]) -> None:
    """Or one is missing of which nobody said so."""
    assert fallen(trial(added("unmapped.frames", -1))) == {
        "host_saw_all",
        "reader_saw_all",
    }


def test_a_reader_that_misses_one_more_falls(trial: Callable[..., Trial]) -> None:
    assert fallen(trial(added("reader.frames.missing", 1))) == {"reader_saw_all"}


def test_an_empty_trace_is_no_answer(trial: Callable[..., Trial]) -> None:
    def empty(folder: Path) -> None:
        (folder / "qemu-trace.log").write_text("")

    assert fallen(trial(empty)) >= {
        *("never_off", "one_handover", "root_taken_over", "no_other_fault", "unmapped_faulted"),
        *("unmap_faults", "other_blocked", "no_device_reset"),
    }


@pytest.mark.parametrize(
    ("old", "new", "checks"),
    [
        ("reader.frames.lost=0", "reader.frames.lost=1", {"reader_saw_all"}),
        ("device.good_packets=", "device.good_packets=1", {"device_counted_all"}),
        ("restore.hwpt=0", "restore.hwpt=-22", {"device_retrieved"}),
        (
            "ok 13 restore_with_an_area_twice",
            "not ok 13 restore_with_an_area_twice",
            {"incoming_rules"},
        ),
        ("preserve_with_a_page_lost", "preserve_with_a_page", {"outgoing_rules"}),
        ("compacted.retrieved=in place", "compacted.retrieved=moved", {"pages_in_place"}),
        ("canary=changed=0", "canary=changed=1", {"canary"}),
        ("hog.status=0", "hog.status=9", {"pages_in_place"}),
        ("pins.wrong=VmPin=0", "pins.wrong=VmPin=4", {"pinned"}),
        ("reuse.landed=0 of 32", "reuse.landed=1 of 32", {"reuse_faults"}),
        ("reuse.length=65536", "reuse.length=64", {"reuse_faults"}),
        ("reuse.landed=0 of 32", "reuse.landed=0 of 0", {"reuse_faults"}),
        ("unmap.missing=50 of 50", "unmap.missing=49 of 50", {"unmap_faults"}),
        ("map.landed=5", "map.landed=", {"map_lands"}),
        ("reader.who=program", "reader.who=guest", {"driven"}),
        ("reader.doorbells=", "reader.doorbells=0", {"driven"}),
        ("finish=0", "finish=-16", {"session_finished"}),
        ("other.command=0x103", "other.command=0x107", {"other_blocked"}),
        ("kernel.taint_at_end=0", "kernel.taint_at_end=64", {"not_tainted"}),
    ],
)
def test_each_piece_of_the_dialogue(
    trial: Callable[..., Trial], old: str, new: str, checks: set[str]
) -> None:
    assert fallen(trial(said(old, new))) == checks

# SPDX-License-Identifier: GPL-2.0-only
"""The judge of stage 1 with QEMU, on a recorded trial and on damaged copies of it.

tests/recorded/kvm_memfd_qemu/ holds the raw files of a real trial (see its README). Each test
edits one piece of evidence and asks whether the right check falls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import UsageError
from common.judge.verdict import judge_trial
from common.record.evidence import Trial
from common.stage.loading import load_stage
from tests.recorded_trial import RECORDED, Edit, RecordedTrial, fallen_checks

STAGE = load_stage(1, "qemu")
MAIN = RECORDED / "kvm_memfd_qemu" / "main"


@pytest.fixture
def trial(tmp_path: Path) -> Callable[..., Trial]:
    """The recorded trial, after an edit had its folder."""
    return RecordedTrial(STAGE, MAIN, tmp_path)


def fallen(trial: Trial) -> set[str]:
    return fallen_checks(trial, STAGE)


def last_beat(key: str, value: str) -> Edit:
    """The guest's last beat says something else."""

    def edit(folder: Path) -> None:
        path = folder / "guest.jsonl"
        *lines, last = path.read_text().splitlines()
        assert " beat n=" in f" {json.loads(last)[1]}"
        changed = re.sub(rf" {re.escape(key)}=\S+", f" {key}={value}", last)
        assert changed != last, f"{key} is not in the last beat"
        path.write_text("\n".join([*lines, changed]) + "\n")

    return edit


def guest_said(text: str) -> Edit:
    """A line more of the guest's, in the end."""

    def edit(folder: Path) -> None:
        path = folder / "guest.jsonl"
        lines = path.read_text().splitlines()
        t = json.loads(lines[-1])[0] + 1
        path.write_text("\n".join([*lines, json.dumps([t, text])]) + "\n")

    return edit


def fact(key: str, value: str) -> Edit:
    """The incoming side says something else."""

    def edit(folder: Path) -> None:
        path = folder / "dialogue.jsonl"
        head, found, tail = path.read_text().rpartition(f"# {key}=")
        assert found, f"{key} is not in the recording"
        path.write_text(head + found + re.sub(r'^[^"]*', value, tail, count=1))

    return edit


def transcript(keep: Callable[[dict[str, Any]], bool]) -> Edit:
    """The monitor's transcript without what is not kept."""

    def edit(folder: Path) -> None:
        path = folder / "guest-qmp.jsonl"
        lines = path.read_text().splitlines()
        kept = [line for line in lines if keep(json.loads(line))]
        assert len(kept) < len(lines)
        path.write_text("".join(f"{line}\n" for line in kept))

    return edit


def event_of(entry: dict[str, Any]) -> str:
    event = entry.get("event", {})
    return f"{entry['side']} {event.get('event')} {event.get('data', {}).get('status', '')}".strip()


def test_the_recording_passes(trial: Callable[..., Trial]) -> None:
    verdict = judge_trial(trial(), STAGE)
    assert (verdict.status, verdict.why) == ("PASS", f"{len(STAGE.checks)} checks")


@pytest.mark.parametrize(
    ("key", "value", "checks"),
    [
        ("boot_id", "00000000-0000-0000-0000-000000000000", {"same_boot"}),
        ("checker.process", "34:687", {"same_processes"}),
        ("writer.process", "32:0", {"same_processes"}),
        ("stamper0.count", "1", {"counts_go_on"}),
        ("stamper0.count", "18446744073709551000", {"counts_go_on"}),
        ("checker.faults", "1", {"guest_memory"}),
        ("checker.steps", "1", {"guest_memory"}),
        ("receiver.faults", "1", {"guest_tcp"}),
        ("receiver.bytes", "1024", {"guest_tcp"}),
        ("writer.faults", "3", {"guest_file"}),
        ("stamper0.faults", "1", {"guest_clocks"}),
        ("mono_ns", "1", {"guest_clocks", "guest_time", "counts_go_on"}),
        ("real_ns", "1", {"guest_clocks", "guest_time"}),
        ("tsc", "1", {"guest_clocks", "guest_time"}),
        ("boot_ns", "99000000000", {"guest_time"}),
    ],
)
def test_each_word_of_the_last_beat(
    trial: Callable[..., Trial], key: str, value: str, checks: set[str]
) -> None:
    assert fallen(trial(last_beat(key, value))) == checks


def test_a_guest_that_starts_twice(trial: Callable[..., Trial]) -> None:
    assert fallen(trial(guest_said("hello release=x nonce=0 cpus=1"))) == {"same_boot"}


def test_a_guest_that_fell_silent_for_good(trial: Callable[..., Trial]) -> None:
    def edit(folder: Path) -> None:
        said = (folder / "guest-qmp.jsonl").read_text().splitlines()
        resumed = next(e["t"] for e in map(json.loads, said) if e.get("command") == "cont")
        path = folder / "guest.jsonl"
        lines = [line for line in path.read_text().splitlines() if json.loads(line)[0] < resumed]
        path.write_text("".join(f"{line}\n" for line in lines))

    assert fallen(trial(edit)) == {
        "same_boot",
        "same_processes",
        "counts_go_on",
        "guest_memory",
        "guest_tcp",
        "guest_file",
        "guest_clocks",
        "guest_time",
    }


@pytest.mark.parametrize(
    ("key", "value", "check"),
    [
        ("state.bytes", "52194", "bytes_moved"),
        ("retrieve.ram", "-2", "memfds_retrieved"),
        ("ram.size", "134217727", "ram_size"),
        ("ram.pages_different", "1", "ram_equal"),
        ("pfn.moved", "1", "same_pages"),
        ("finish", "-22", "session_finished"),
    ],
)
def test_each_fact_of_the_incoming_side(
    trial: Callable[..., Trial], key: str, value: str, check: str
) -> None:
    assert fallen(trial(fact(key, value))) == {check}


@pytest.mark.parametrize(
    ("event", "checks"),
    [
        ("outgoing MIGRATION completed", {"qemu_saved"}),
        ("incoming RESUME", {"qemu_loaded", "guest_time"}),
    ],
)
def test_an_event_that_never_came(
    trial: Callable[..., Trial], event: str, checks: set[str]
) -> None:
    assert fallen(trial(transcript(lambda entry: event_of(entry) != event))) == checks


def test_another_qemu(trial: Callable[..., Trial]) -> None:
    def edit(folder: Path) -> None:
        path = folder / "guest-qmp.jsonl"
        path.write_text(path.read_text().replace('"micro": 2', '"micro": 3', 1))

    assert fallen(trial(edit)) == {"same_qemu"}


def test_what_the_host_saw(trial: Callable[..., Trial]) -> None:
    def edit(folder: Path) -> None:
        path = folder / "ram-witness.json"
        seen = json.loads(path.read_text())
        seen["sha256"]["retrieved"] = "0" * 64
        path.write_text(json.dumps(seen))

    assert fallen(trial(edit)) == {"host_saw_ram"}


@pytest.mark.parametrize("name", ["guest.jsonl", "guest-qmp.jsonl", "ram-witness.json"])
def test_a_file_that_is_missing(trial: Callable[..., Trial], name: str) -> None:
    with pytest.raises(UsageError, match=f"half a trial, {name} is missing"):
        trial(lambda folder: (folder / name).unlink())


@pytest.mark.parametrize("name", ["guest.jsonl", "guest-qmp.jsonl"])
def test_a_file_that_is_damaged(trial: Callable[..., Trial], name: str) -> None:
    with pytest.raises(UsageError, match="damaged trial"):
        trial(lambda folder: (folder / name).write_text("[1\n"))


def test_the_blackout_is_the_sum_of_its_phases(trial: Callable[..., Trial]) -> None:
    found = trial()
    whole = STAGE.phases(found)["blackout (QEMU's STOP to RESUME)"]
    assert sum(STAGE.blackout(found).values()) == pytest.approx(whole, rel=0.1)


def test_a_guest_that_says_less_leaves_phases_out(trial: Callable[..., Trial]) -> None:
    """A report is made of any run, whatever its guest did not say."""

    def beats_without_values(folder: Path) -> None:
        path = folder / "guest.jsonl"
        path.write_text(re.sub(r'(?<="beat )n=[^"]*', "n=a:b:c", path.read_text()))

    phases = STAGE.phases(trial(beats_without_values))
    assert "retrieve" in phases
    assert not [phase for phase in phases if "guest's" in phase]

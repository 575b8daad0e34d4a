# SPDX-License-Identifier: GPL-2.0-only
"""Stage 1 beside the guest: small memfds, memory that comes back, lists; on an edited recording."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from common.guest.checks import STATE_TAKEN
from common.judge.verdict import judge_trial
from common.stage.loading import load_stage
from tests.recorded_trial import KVM_MEMFD, Edit, RecordedTrial, fallen_checks, said

STAGE = load_stage(1)
WITNESS = "files-witness.json"


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedTrial:
    return RecordedTrial(STAGE, KVM_MEMFD / "main", tmp_path)


def word(fact: str, name: str, value: str) -> Edit:
    """One word of a fact of many, of the side that speaks last of it."""

    def edit(folder: Path) -> None:
        path = folder / "dialogue.jsonl"
        lines = path.read_text().splitlines()
        at = [n for n, line in enumerate(lines) if f'"# {fact}=' in line][-1]
        lines[at], found = re.subn(rf"(?<=[ =]{name}=)[^ \"]*", value, lines[at], count=1)
        assert found, f"{name} is not in {lines[at]}"
        path.write_text("\n".join(lines) + "\n")

    return edit


def witnessed(*keys: str, value: object) -> Edit:
    def edit(folder: Path) -> None:
        found = json.loads((folder / WITNESS).read_text())
        place = found[0]
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        (folder / WITNESS).write_text(json.dumps(found))

    return edit


EDITS = {
    "one byte is another": (word("file.hole", "wrong", "1"), {"files_content"}),
    "another content": (word("file.written", "digest", "0"), {"files_content"}),
    "a page is missing": (word("file.odd-size", "blocks", "24"), {"files_size"}),
    "another size": (word("file.odd-size", "size", "12288"), {"files_size"}),
    "another position": (word("file.duplicated", "position", "0"), {"files_position"}),
    "a seal is lost": (word("file.seal-exec", "seals", "0x3c"), {"files_sealed"}),
    "a seal does not hold": (
        word("file.seal-grow", "may", "map,write,grow,shrink,chmod,seal"),
        {"files_sealed"},
    ),
    "a file is frozen": (word("file.written", "may", "map,write,chmod,seal"), {"files_sealed"}),
    "a status flag is kept": (word("file.status-flags", "flags", "0x8402"), {"files_flags"}),
    "close-on-exec is not set": (word("file.written", "cloexec", "0"), {"files_flags"}),
    "a clean folio": (word("file.written", "not-dirty", "1"), {"files_kept"}),
    "a folio on no list": (word("file.large-folio", "not-lru", "1"), {"files_kept"}),
    "bytes lost to reclaim": (word("file.written", "lost", "4096"), {"files_kept"}),
    "a large folio was split": (word("file.large-folio", "compound", "0"), {"files_same_pages"}),
    "the host saw others": (
        witnessed("sha256", "files", value="0" * 64),
        {"host_saw_files"},
    ),
    "a pin is kept": (
        word("memory.aborted", "pins", "9"),
        {"abort_gives_back", "refusal_takes_nothing"},
    ),
    "a page stays registered": (
        witnessed("kho", "aborted", value={"0": 2000}),
        {"abort_gives_back", "refusal_takes_nothing"},
    ),
    "the holder held nothing": (word("memory.held", "pins", "0"), {"kill_gives_back"}),
    "the kernel warned": (word("memory.failed", "taint", "512"), {"failed_retrieve"}),
    "memory is not available": (
        word("memory.released", "available", "1"),
        {"finish_gives_back", "unretrieved_given_back"},
    ),
    "nobody is charged": (word("memory.retrieved", "charged", "0"), {"finish_gives_back"}),
    "a charge is kept": (
        word("memory.released", "charged", "2048"),
        {"finish_gives_back", "unretrieved_given_back"},
    ),
    "nothing was swapped out": (said("files.swapped=8", "files.swapped=0"), {"files_kept"}),
    "one page less": (word("memory.end", "total", "1000"), {"all_restored"}),
    "one file of many": (word("many.files", "right", "199"), {"many_came"}),
    "none of none": (word("many.folios", "of", "0"), {"many_came"}),
    "a file without a session": (
        word("race.0", "files", "7"),
        {"serialised_at_once", "all_restored"},
    ),
    "a file that was to be there": (
        word("race.2", "files", "0"),
        {"serialised_at_once", "all_restored"},
    ),
    "two sessions of a racer": (word("race.1", "sessions", "2"), {"serialised_at_once"}),
    "no errno": (said("failed.again=-28", "failed.again=-22"), {"failed_retrieve"}),
    "an MSR was refused": (
        said("restore.msrs_refused=0", "restore.msrs_refused=1 0x10"),
        {"state_taken"},
    ),
    "no interrupt was left": (
        said("capture.vcpus_interrupted=1", "capture.vcpus_interrupted=0"),
        {"state_taken"},
    ),
    "an interrupt was lost": (
        said("guest.interrupts_lost=0", "guest.interrupts_lost=1"),
        {"state_taken"},
    ),
}


def test_the_recording_passes(recorded: RecordedTrial) -> None:
    assert fallen_checks(recorded(), STAGE) == set()


@pytest.mark.parametrize(("edit", "fallen"), EDITS.values(), ids=EDITS.keys())
def test_one_word_one_check(recorded: RecordedTrial, edit: Edit, fallen: set[str]) -> None:
    broken = fallen_checks(recorded(edit), STAGE)
    assert broken == fallen


def test_a_kernel_without_cgroups_and_swap_is_asked_for_neither(recorded: RecordedTrial) -> None:
    def without(folder: Path) -> None:
        said("memory.cgroup=0", "memory.cgroup=-19")(folder)
        said("files.swap=0", "files.swap=-2")(folder)

    trial = recorded(without)
    answers = {answer.check: answer.outcome for answer in judge_trial(trial, STAGE).answers}
    assert "the kernel has no memory cgroups" in answers["finish_gives_back"].seen
    assert "no swap in this kernel (-2)" in answers["files_kept"].seen
    assert fallen_checks(trial, STAGE) == set()


def test_without_the_hosts_count_there_is_no_data(recorded: RecordedTrial) -> None:
    trial = recorded(witnessed("kho", value={}))
    assert fallen_checks(trial, STAGE) == {
        "all_restored",
        "abort_gives_back",
        "refusal_takes_nothing",
        "kill_gives_back",
    }


def test_a_file_of_which_nothing_is_said_is_no_pass(recorded: RecordedTrial) -> None:
    trial = recorded(said("# file.one-byte=size=1", "# file.none=size=1"))
    assert {"files_content", "files_kept"} <= fallen_checks(trial, STAGE)


KEEPS = "0006-mm-memfd_luo-never-free-the-memory-of-a-failed-retri.patch 0"


def series_keeps_memory(folder: Path) -> None:
    setting = json.loads((folder / "trial.json").read_text())
    setting["incoming"]["patches"] = [KEEPS]
    (folder / "trial.json").write_text(json.dumps(setting))


def an_image_of(*offers: str) -> Edit:
    """The incoming kernel is an image that names these formats; of its patches nothing is known."""

    def edit(folder: Path) -> None:
        setting = json.loads((folder / "trial.json").read_text())
        setting["incoming"] |= {"prebuilt": True, "patches": [], "offers": offers}
        (folder / "trial.json").write_text(json.dumps(setting))

    return edit


@pytest.mark.parametrize(
    ("offers", "fallen"),
    [
        (("kho-v4", "luo-v5", "memfd-v2"), set()),
        (("kho-v5", "luo-v6", "memfd-v3", "pci-live-v1"), {"finish_gives_back", "failed_retrieve"}),
    ],
)
def test_an_image_is_of_our_series_by_the_formats_that_it_names(
    recorded: RecordedTrial, offers: tuple[str, ...], fallen: set[str]
) -> None:
    """What stock Linux does is a failure with our series."""
    found = fallen_checks(recorded(an_image_of(*offers)), STAGE)
    assert found & {"finish_gives_back", "failed_retrieve"} == fallen


def available_after_failure(kb: int) -> Edit:
    """MemAvailable after the retrieve that failed: so many kB more than before it."""

    def edit(folder: Path) -> None:
        lines = (folder / "dialogue.jsonl").read_text()
        before = re.findall(r"memory\.dropped=available=(\d+)", lines)
        assert before
        word("memory.failed", "available", str(int(before[-1]) + kb))(folder)

    return edit


def test_a_series_that_keeps_what_could_not_be_retrieved_gives_nothing_back(
    recorded: RecordedTrial,
) -> None:
    """Patch 6 of stage 2; what stock Linux does is a failure with it."""
    assert "failed_retrieve" in fallen_checks(recorded(series_keeps_memory), STAGE)


def test_a_retrieve_that_failed_may_keep_the_memory_with_that_series(
    recorded: RecordedTrial,
) -> None:
    def edit(folder: Path) -> None:
        series_keeps_memory(folder)
        available_after_failure(0)(folder)

    assert "failed_retrieve" not in fallen_checks(recorded(edit), STAGE)


@pytest.mark.parametrize(
    ("edits", "accelerator", "status"),
    [
        ({}, "tcg", "PASS"),
        ({"twice": "1"}, "tcg", "DISTURBED"),
        ({"twice": "1"}, "kvm", "FAIL"),
        ({"twice": "2"}, "tcg", "FAIL"),
        ({"twice": "1", "lost": "1"}, "tcg", "FAIL"),
        ({"lost": "1"}, "tcg", "FAIL"),
    ],
)
def test_one_interrupt_too_many_may_be_qemus(
    recorded: RecordedTrial, edits: dict[str, str], accelerator: str, status: str
) -> None:
    def edit(folder: Path) -> None:
        for name, count in edits.items():
            said(f"guest.interrupts_{name}=0", f"guest.interrupts_{name}={count}")(folder)

    trial = recorded(edit)
    host = trial.setting.host.model_copy(update={"accelerator": accelerator})
    setting = trial.setting.model_copy(update={"host": host})
    assert STATE_TAKEN.ask(trial.model_copy(update={"setting": setting})).status == status

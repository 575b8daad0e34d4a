# SPDX-License-Identifier: GPL-2.0-only
"""A device that a kernel stops and its owner initialises anew, on stage 2's recorded trial."""

from __future__ import annotations

import array
from collections.abc import Callable
from pathlib import Path

import pytest

from common.dma.after import LOG
from common.dma.frames import Landing, read_landed, write_landed
from common.judge.verdict import TrialVerdict, judge_trial
from common.record.evidence import Trial
from common.stage.loading import load_stage
from tests.recorded_trial import VFIO_NOIOMMU, RecordedTrial, fallen_checks
from tests.stages.test_vfio_noiommu import kexec, landing, traced

STAGE = load_stage(2)
THEIRS = ("luo-v5", "memfd-v2", "pci-v2", "vfio-pci-v1")
Load = Callable[..., Trial]


@pytest.fixture
def trial(tmp_path: Path) -> Load:
    return RecordedTrial(STAGE, VFIO_NOIOMMU / "main", tmp_path)


def until_kexec(landed: list[Landing], begin: int) -> list[Landing]:
    return [one for one in landed if one.seen < begin]


def stopped(folder: Path) -> None:
    """The kernel resets the device just before it starts the next one, and nothing lands then."""
    traced("e1000e_cb_qdev_reset_hold E1000E qdev reset hold", ms=-9)(folder)
    traced("pci_cfg_write igb 03:00.0 @0x4 <- 0x400", ms=-8)(folder)
    landing(until_kexec)(folder)


def anew(keep: Callable[[int], bool] = lambda _number: True) -> Callable[[Path], None]:
    """The same; and what the recording has from the takeover on lands in a ring placed anew."""

    def edit(folder: Path) -> None:
        begin = kexec(folder)
        kept = [one for one in read_landed(folder / "device-landed.bin") if one.seen >= begin]
        stopped(folder)
        rows: array.array[int] = array.array("Q")
        for one in kept:
            if keep(one.number):
                rows.extend(one)
        write_landed(folder / LOG, rows)
        path = folder / "dialogue.jsonl"
        lines = path.read_text().splitlines(keepends=True)
        at = next(n for n, line in enumerate(lines) if "# t.adopted=" in line)
        lines.insert(at, lines[at].replace("t.adopted", "t.anew"))
        path.write_text("".join(lines))

    return edit


def on_theirs(trial: Trial) -> TrialVerdict:
    setting = trial.setting.model_copy(update={"series": "none"})
    kernels = {
        side: getattr(setting, side).model_copy(update={"offers": THEIRS})
        for side in ("outgoing", "incoming")
    }
    return judge_trial(
        trial.model_copy(update={"setting": setting.model_copy(update=kernels)}), STAGE
    )


def test_a_device_that_goes_on_lands_after(trial: Load) -> None:
    answers = {a.check: a.outcome for a in judge_trial(trial(), STAGE).answers}
    assert answers["dma_after"].status == answers["same_place"].status == "PASS"
    assert "the device was taken over as it ran" in answers["dma_after"].seen


def test_a_device_that_stays_silent_falls_and_no_series_is_excused(trial: Load) -> None:
    found = trial(stopped)
    assert "dma_after" in fallen_checks(found, STAGE)
    verdict = on_theirs(found)
    assert verdict.status == "FAIL"
    assert verdict.why.startswith("dma_after: expected ")


def test_a_device_that_is_initialised_anew_is_an_xfail_with_its_reset(trial: Load) -> None:
    verdict = on_theirs(trial(anew()))
    assert verdict.status == "XFAIL", verdict.why
    answers = {a.check: a for a in verdict.answers}
    assert answers["dma_after"].outcome.status == "PASS"
    assert "the device was initialised anew" in answers["dma_after"].outcome.seen
    assert answers["no_device_reset"].outcome.status == "XFAIL"
    assert answers["no_device_reset"].cause == (
        "e1000e_cb_qdev_reset_hold E1000E qdev reset hold at -9.0 ms;"
        " PCI_COMMAND of 03:00.0 <- 0x400 at -8.0 ms"
    )
    assert "XPASS: device_counted_all, guest_saw_all" in verdict.why


def test_a_ring_that_takes_half_of_the_frames_falls(trial: Load) -> None:
    verdict = on_theirs(trial(anew(lambda number: number % 2 == 0)))
    assert verdict.status == "FAIL"
    assert verdict.why.startswith("dma_after: ")


def test_another_place_falls(trial: Load) -> None:
    def moved(folder: Path) -> None:
        path = folder / "dialogue.jsonl"
        head, found, tail = path.read_text().rpartition("/0000:03:00.0")
        assert found
        path.write_text(f"{head}/0000:05:00.0{tail}")

    assert "same_place" in fallen_checks(trial(moved), STAGE)

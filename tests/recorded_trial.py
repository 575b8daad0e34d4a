# SPDX-License-Identifier: GPL-2.0-only
"""Damaged copies of a recorded main trial: what the tests of each stage's judge edit and ask."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.guest.evidence import RamEvidence
from common.judge.verdict import judge_trial
from common.paths import CHECKOUT
from common.record.evidence import Trial, collect
from common.stage.declaration import Stage

RECORDED = CHECKOUT / "tests" / "recorded"
KVM_MEMFD, VFIO_NOIOMMU, IOMMUFD = (
    RECORDED / name for name in ("kvm_memfd", "vfio_noiommu", "iommufd")
)
Edit = Callable[[Path], None]


@dataclass(frozen=True)
class RecordedTrial:
    """A trial in `source`; each call makes a copy below `folder`, so one call for each test."""

    stage: Stage
    source: Path
    folder: Path

    def __call__(self, edit: Edit = lambda _folder: None) -> Trial:
        """The recorded trial, after `edit` had its folder."""
        folder = self.folder / "main"
        folder.mkdir()
        for source in self.source.iterdir():
            (folder / source.name).write_bytes(source.read_bytes())
        edit(folder)
        return collect(folder, witness=self.stage.witness)


def with_ram(trial: Trial, **changes: object) -> Trial:
    """The trial as if the host had seen that in the guest's memory."""
    ram = trial.seen(RamEvidence).ram.model_copy(update=changes)
    return trial.model_copy(update={"witness": trial.witness.model_copy(update={"ram": ram})})


def fallen_checks(trial: Trial, stage: Stage) -> set[str]:
    """The checks that do not pass."""
    answers = judge_trial(trial, stage).answers
    return {answer.check for answer in answers if answer.outcome.status != "PASS"}


def said(old: str, new: str) -> Edit:
    """The last line of the dialogue with `old` in it, which is the incoming side's, with `new`."""

    def edit(folder: Path) -> None:
        path = folder / "dialogue.jsonl"
        head, found, tail = path.read_text().rpartition(old)
        assert found, f"{old!r} is not in the recording"
        path.write_text(head + new + tail)

    return edit


def added(key: str, by: int) -> Edit:
    """The last of the facts of this name with a number that is `by` more."""

    def edit(folder: Path) -> None:
        path = folder / "dialogue.jsonl"
        head, found, tail = path.read_text().rpartition(f"# {key}=")
        assert found, f"{key!r} is not in the recording"
        more = re.sub(r"^\d+", lambda number: str(int(number[0]) + by), tail)
        assert more != tail, f"{key!r} is no number"
        path.write_text(head + found + more)

    return edit

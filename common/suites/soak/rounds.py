# SPDX-License-Identifier: GPL-2.0-only
"""The rounds of a soak, which go on whatever becomes of a single trial."""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.errors import StagesError
from common.judge.verdict import ControlVerdict, TrialVerdict, judge
from common.record.evidence import Run
from common.stage.declaration import Stage
from common.suites.soak.state import HARNESS, Result, Soak, counts, give_up
from common.text import printable


@dataclass(frozen=True)
class Judged:
    """A trial's last attempt, judged, and how many there were."""

    status: str
    why: str
    attempts: int = 1


RunOne = Callable[[str, str, Path], Judged]
"""Runs the trial of that stage label and name, in that folder. Raises StagesError."""


def judged(run: Run, stage: Stage) -> Judged:
    """What a run of one plan came to, by the attempt that counts, and how many that took."""
    verdict = judge(run, stage)
    of_trials: tuple[TrialVerdict | ControlVerdict, ...] = (*verdict.trials, *verdict.controls)
    one = of_trials[0]
    return Judged(one.status, one.why, len(one.disturbed) + 1)


def go_on(
    soak: Soak, run_one: RunOne, *, rounds: int | None = None, hours: float | None = None
) -> None:
    """Run what is left of so many rounds, or hours of trials; without a limit until interrupted.

    Raises HarnessError where trial after trial cannot be run.
    """
    assert soak.state
    while not soak.finished(rounds=rounds, hours=hours):
        number, stage, trial = soak.next_trial()
        folder = soak.running / f"{stage}.{trial}"
        folder.mkdir(parents=True)
        began = time.monotonic()
        found = _survived(run_one, stage, trial, folder)
        result = Result(
            round=number,
            stage=stage,
            trial=trial,
            status=found.status,
            why=found.why,
            attempts=found.attempts,
            seconds=round(time.monotonic() - began, 3),
            commit=soak.state.commit,
            time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        _tell(soak, soak.add(result, folder))
        give_up(soak.results)


def _survived(run_one: RunOne, stage: str, trial: str, folder: Path) -> Judged:
    """An error of the harness, or of its host, is a result of this trial and no other."""
    try:
        return run_one(stage, trial, folder)
    except StagesError as error:
        said = "\n".join((str(error), *error.details))
    except OSError as error:
        said = f"{error.filename or 'the harness'}: {error.strerror or error}"
    (folder / "error.txt").write_text(said + "\n")
    return Judged(HARNESS, said.splitlines()[0])


def _tell(soak: Soak, result: Result) -> None:
    assert soak.state
    turn = (len(soak.results) - 1) % len(soak.state.trials) + 1
    status = result.status.lower() if result.kind == "right" else result.status
    attempts = f", attempt {result.attempts}" if result.attempts > 1 else ""
    text = (
        f"  {result.seconds:5.1f} s  round {result.round}, {turn} of {len(soak.state.trials)}"
        f" ({counts(soak.results)}): {result.stage} {result.trial}{attempts}: {status}:"
        f" {result.why}"
    )
    print(printable(text), file=sys.stderr, flush=True)

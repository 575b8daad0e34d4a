# SPDX-License-Identifier: GPL-2.0-only
"""Tells on stderr what a trial is doing, from the dialogue as it comes."""

from __future__ import annotations

import sys
import time

from common.judge.verdict import judge_control, judge_trial
from common.record.evidence import Trial
from common.run.setup import TrialPlan
from common.stage.declaration import Stage
from common.text import printable


class Progress:
    """One line per step of the main run, one line per finished trial."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._detailed = True
        self._began = 0.0

    def begin(self, plan: TrialPlan) -> None:
        """A trial starts: the main run is told step by step, the others in one line."""
        self._began = time.monotonic()
        self._detailed = plan.name == "main"

    def line(self, text: str) -> None:
        """A line of the dialogue; those the stage has words for are told."""
        if not self._detailed:
            return
        key, _, value = text.removeprefix("# ").partition("=")
        if words := self._stage.progress_messages.get(key):
            seconds = time.monotonic() - self._began
            _tell(f"  {seconds:5.1f} s  {words.format(value)}")

    def end(self, trial: Trial) -> None:
        """A trial has ended: its verdict in one line."""
        seconds = (trial.setting.ended_ns - trial.setting.started_ns) / 1e9
        if name := trial.setting.control:
            verdict = judge_control(trial, self._stage.control(name), self._stage)
            said = f"{verdict.status.lower() if verdict.good else verdict.status}: {verdict.why}"
        else:
            main = judge_trial(trial, self._stage)
            said = f"{main.status}: {main.why}"
            if main.status == "PASS" and main.away:
                said += f" (host: {main.away})"
        _tell(f"  {seconds:5.1f} s  {trial.setting.name}: {said}")


def _tell(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)

# SPDX-License-Identifier: GPL-2.0-only
"""A verdict as KTAP (Documentation/dev-tools/ktap.rst). Pure."""

from __future__ import annotations

from common.record import Run
from common.stage import Stage
from common.verdict import Answer, Verdict


def stage_result(position: int, stage: Stage, run: Run, verdict: Verdict) -> str:
    """A stage as a KTAP subtest: its checks, its controls, its phases as diagnostics."""
    answers = [a for trial in verdict.trials for a in trial.answers]
    lines = ["KTAP version 1", f"1..{len(answers) + len(verdict.controls)}"]
    for number, answer in enumerate(answers, start=1):
        lines += _answer(number, answer)
    for number, control in enumerate(verdict.controls, start=len(answers) + 1):
        word = "ok" if control.good else "not ok"
        lines += [f"# seen: {control.why}", f"{word} {number} control_{control.control}"]
    for trial in run.trials:
        if trial.setting.control is None:
            lines += [f"# {k}: {v:.1f} ms" for k, v in stage.phases(trial).items()]
    word = "ok" if verdict.status == "PASS" else "not ok"
    suffix = {"TIMEOUT": " # TIMEOUT", "ERROR": " # ERROR"}.get(verdict.status, "")
    indented = "".join(f"  {line}\n" for line in lines)
    why = "" if verdict.status == "PASS" else f"# {verdict.status}: {verdict.why}\n"
    return f"{indented}{why}{word} {position} {stage.folder.name}{suffix}\n"


def _answer(number: int, answer: Answer) -> list[str]:
    outcome = answer.outcome
    if outcome.status == "PASS":
        return [f"ok {number} {answer.check}"]
    return [
        f"# expected: {outcome.expected}",
        f"# seen: {outcome.seen}",
        f"not ok {number} {answer.check}",
    ]

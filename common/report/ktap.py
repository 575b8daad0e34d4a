# SPDX-License-Identifier: GPL-2.0-only
"""A verdict as KTAP (Documentation/dev-tools/ktap.rst). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common.errors import CannotRunHere, StagesError
from common.judge.verdict import Answer, Verdict
from common.record.evidence import Run
from common.report.comparison import Difference
from common.report.host import attempts
from common.report.text import crash_lines
from common.stage.declaration import Stage
from common.text import printable

_DIRECTIVES = ("XFAIL", "TIMEOUT", "ERROR")
_GOOD = ("PASS", "XPASS", "XFAIL")


def stage_result(
    position: int, stage: Stage, run: Run, verdict: Verdict, *, worse: Sequence[Difference] = ()
) -> str:
    """A stage as a KTAP subtest: its checks, its controls, its phases as diagnostics.

    `worse` is what a baseline did better: with any of it the stage is not ok.
    """
    answers = [(name, answer) for name, _trial, answer in named_answers(verdict)]
    count = len(answers) + len(verdict.controls) + len(worse)
    lines = ["KTAP version 1", f"# Subtest: {stage.label}", f"1..{count}"]
    for number, (name, answer) in enumerate(answers, start=1):
        lines += _answer(number, name, answer)
    for number, control in enumerate(verdict.controls, start=len(answers) + 1):
        word = "ok" if control.good or verdict.status == "XFAIL" else "not ok"
        lines += [f"# seen: {one_line(control.why)}", f"{word} {number} control_{control.control}"]
    for number, one in enumerate(worse, start=count - len(worse) + 1):
        name = one.what.replace(" ", "_")
        lines += [f"# {one_line(one.text)}", f"not ok {number} as_good_as_baseline_{name}"]
    lines += [f"# {one_line(text)}" for text in attempts(verdict)]
    shown = {main.trial for main in verdict.trials}
    for trial in (trial for trial in run.trials if trial.setting.name in shown):
        if crash := trial.setting.crash:
            lines += [f"# {one_line(text)}" for text in crash_lines(trial.setting.name, crash)]
        lines += [f"# {k}: {v:.1f} ms" for k, v in stage.phases(trial).items()]
    word = "ok" if verdict.status in _GOOD and not worse else "not ok"
    return "".join(
        [
            *(f"  {line}\n" for line in lines),
            "" if verdict.status == "PASS" else f"# {verdict.status}: {one_line(verdict.why)}\n",
            f"{word} {position} {stage.label}{_directive(verdict)}\n",
        ]
    )


def named_answers(verdict: Verdict) -> Iterator[tuple[str, str, Answer]]:
    """Each check's name in a report, its main trial, its answer; of several mains it has theirs."""
    several = len(verdict.trials) > 1
    for trial in verdict.trials:
        for answer in trial.answers:
            yield f"{trial.trial}.{answer.check}" if several else answer.check, trial.trial, answer


def not_run(position: int, stage: Stage, error: StagesError) -> str:
    """A stage of which there is no verdict: SKIP where that is nobody's fault, else ERROR."""
    word, directive = ("ok", "SKIP") if isinstance(error, CannotRunHere) else ("not ok", "ERROR")
    return f"{word} {position} {stage.label} # {directive} {one_line(str(error))}\n"


def _directive(verdict: Verdict) -> str:
    if verdict.status == "DISTURBED":  # KTAP has no word for it but this one
        return f" # ERROR {verdict.status}: {one_line(verdict.why)}"
    if verdict.status in _DIRECTIVES:
        return f" # {verdict.status} {one_line(verdict.why)}"
    return ""


def _answer(number: int, name: str, answer: Answer) -> list[str]:
    """KTAP has no word for an XPASS: it is told in a line of its own."""
    outcome, whose = answer.outcome, f"promise of {answer.whose}"
    match outcome.status:
        case "PASS":
            return [f"ok {number} {name}"]
        case "XPASS":
            return [
                f"# XPASS {name}: {whose}, not made but kept",
                f"ok {number} {name}",
            ]
        case "N/A":
            return [f"ok {number} {name} # SKIP {whose}: {one_line(outcome.seen)}"]
        case "XFAIL":
            result = f"ok {number} {name} # XFAIL {whose}: {one_line(answer.cause or '')}"
        case _:
            result = f"not ok {number} {name}"
    return [
        f"# expected: {one_line(outcome.expected)}",
        f"# seen: {one_line(outcome.seen)}",
        result,
    ]


def one_line(text: str) -> str:
    """Text from the machine on one line, and no directive by accident."""
    return printable(" ".join(text.split()).replace(" # ", " "))

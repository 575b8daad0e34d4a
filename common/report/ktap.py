# SPDX-License-Identifier: GPL-2.0-only
"""A verdict as KTAP (Documentation/dev-tools/ktap.rst). Pure."""

from __future__ import annotations

from collections.abc import Sequence

from common.errors import CannotRunHere, StagesError
from common.judge.verdict import Answer, Verdict
from common.record.evidence import Run
from common.report.comparison import Difference
from common.report.host import attempts
from common.report.text import crash_lines
from common.stage.declaration import Stage
from common.suites.upstream.result import UpstreamResult
from common.text import printable

_DIRECTIVES = ("XFAIL", "TIMEOUT", "ERROR")


def stage_result(
    position: int, stage: Stage, run: Run, verdict: Verdict, *, worse: Sequence[Difference] = ()
) -> str:
    """A stage as a KTAP subtest: its checks, its controls, its phases as diagnostics.

    `worse` is what a baseline did better: with any of it the stage is not ok.
    """
    expected = verdict.status == "XFAIL"
    answers = [
        (f"{trial.trial}.{answer.check}" if len(verdict.trials) > 1 else answer.check, answer)
        for trial in verdict.trials
        for answer in trial.answers
    ]
    count = len(answers) + len(verdict.controls) + len(worse)
    lines = ["KTAP version 1", f"# Subtest: {stage.label}", f"1..{count}"]
    for number, (name, answer) in enumerate(answers, start=1):
        lines += _answer(number, name, answer, expected)
    for number, control in enumerate(verdict.controls, start=len(answers) + 1):
        word = "ok" if control.good or expected else "not ok"
        lines += [f"# seen: {_line(control.why)}", f"{word} {number} control_{control.control}"]
    for number, one in enumerate(worse, start=count - len(worse) + 1):
        name = one.what.replace(" ", "_")
        lines += [f"# {_line(one.text)}", f"not ok {number} as_good_as_baseline_{name}"]
    lines += [f"# {_line(text)}" for text in attempts(verdict)]
    shown = {main.trial for main in verdict.trials}
    for trial in (trial for trial in run.trials if trial.setting.name in shown):
        if crash := trial.setting.crash:
            lines += [f"# {_line(text)}" for text in crash_lines(trial.setting.name, crash)]
        lines += [f"# {k}: {v:.1f} ms" for k, v in stage.phases(trial).items()]
    word = "ok" if verdict.status in ("PASS", "XFAIL") and not worse else "not ok"
    return "".join(
        [
            *(f"  {line}\n" for line in lines),
            "" if verdict.status == "PASS" else f"# {verdict.status}: {_line(verdict.why)}\n",
            f"{word} {position} {stage.label}{_directive(verdict)}\n",
        ]
    )


def not_run(position: int, stage: Stage, error: StagesError) -> str:
    """A stage of which there is no verdict: SKIP where that is nobody's fault, else ERROR."""
    word, directive = ("ok", "SKIP") if isinstance(error, CannotRunHere) else ("not ok", "ERROR")
    return f"{word} {position} {stage.label} # {directive} {_line(str(error))}\n"


def suite_result(position: int, suite: str, results: Sequence[UpstreamResult] | StagesError) -> str:
    """A suite of the kernel's own tests as a KTAP subtest, with what each test said.

    A suite that could not be run is a SKIP with the reason; it has no subtest then.
    """
    if isinstance(results, StagesError):
        told = [f"# {_line(detail)}\n" for detail in results.details]
        return "".join([*told, f"ok {position} {suite} # SKIP {_line(str(results))}\n"])
    lines = ["KTAP version 1", f"# Subtest: {suite}", f"1..{len(results)}"]
    for number, one in enumerate(results, start=1):
        lines += [f"# {one.test.name}: {_line(text.lstrip('# '))}" for text in one.said]
        lines += [f"# seen: {_line(one.why)}"]
        lines += [_UPSTREAM[one.status].format(number, one.test.name, _line(one.why))]
    statuses = {one.status for one in results}
    word = "not ok" if statuses - {"PASS", "SKIP"} else "ok"
    skipped = sum(one.status == "SKIP" for one in results)
    note = f" # SKIP {skipped} of {len(results)} tests" if skipped and word == "ok" else ""
    return "".join(f"  {line}\n" for line in lines) + f"{word} {position} {suite}{note}\n"


_UPSTREAM = {
    "PASS": "ok {} {}",
    "SKIP": "ok {} {} # SKIP {}",
    "FAIL": "not ok {} {}",
    "CRASHED": "not ok {} {}",
    "TIMEOUT": "not ok {} {} # TIMEOUT {}",
}


def _directive(verdict: Verdict) -> str:
    if verdict.status == "DISTURBED":  # KTAP has no word for it but this one
        return f" # ERROR {verdict.status}: {_line(verdict.why)}"
    if verdict.status in _DIRECTIVES:
        return f" # {verdict.status} {_line(verdict.why)}"
    return ""


def _answer(number: int, name: str, answer: Answer, expected: bool) -> list[str]:
    outcome = answer.outcome
    if outcome.status == "PASS":
        return [f"ok {number} {name}"]
    return [
        f"# expected: {_line(outcome.expected)}",
        f"# seen: {_line(outcome.seen)}",
        f"ok {number} {name} # XFAIL" if expected else f"not ok {number} {name}",
    ]


def _line(text: str) -> str:
    """Text from the machine on one line, and no directive by accident."""
    return printable(" ".join(text.split()).replace(" # ", " "))

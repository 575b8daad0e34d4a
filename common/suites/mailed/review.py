# SPDX-License-Identifier: GPL-2.0-only
"""The result of a check for `b4 review`, as b4's manual describes it: a JSON array. Pure.

Each entry has the name of a tool, which heads a column, and one of "pass", "warn" and "fail"; a
line, and more lines for who looks closer. The lines are plain text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from common.errors import CannotRunHere, StagesError
from common.judge.verdict import RunStatus, Verdict
from common.stage.declaration import Stage
from common.suites.each_patch import Step
from common.text import printable, without_home

Word = Literal["pass", "warn", "fail"]
_NOT_AGAINST: tuple[RunStatus, ...] = ("XFAIL", "SKIP", "DISTURBED", "ERROR", "OTHER CODE")
"""What says nothing against the series: "warn"."""
EACH = "each patch"


@dataclass(frozen=True)
class Entry:
    """One result."""

    tool: str
    status: Word
    summary: str
    details: str = ""


def review_json(entries: Iterable[Entry]) -> str:
    """The array, as b4 takes it from a review-series-check-cmd."""
    found = [
        {key: printable(without_home(value)) for key, value in asdict(one).items() if value}
        for one in entries
    ]
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def of_stage(stage: Stage, verdict: Verdict) -> Entry:
    """A stage that was run."""
    said = f"{verdict.status}: {verdict.why}"
    return Entry(stage.label, _word(verdict.status), said, _details(verdict))


def _word(status: RunStatus) -> Word:
    if status in ("PASS", "XPASS"):
        return "pass"
    return "warn" if status in _NOT_AGAINST else "fail"


def _details(verdict: Verdict) -> str:
    lines = []
    for trial in verdict.trials:
        for answer in trial.answers:
            outcome = answer.outcome
            if not outcome.held:
                lines.append(
                    f"{answer.check} ({answer.whose}) {outcome.status}: expected"
                    f" {outcome.expected}; seen {outcome.seen}"
                )
    lines += [f"control {c.control} {c.status}: {c.why}" for c in verdict.controls if not c.good]
    return "\n".join(lines)


def of_error(tool: str, error: StagesError) -> Entry:
    """What came to no result: that a kernel does not build is the series's; a host's fault not."""
    of_the_host = error.exit_status in (CannotRunHere.exit_status, StagesError.exit_status)
    return Entry(tool, "warn" if of_the_host else "fail", str(error), "\n".join(error.details))


def of_steps(steps: Iterable[Step], error: StagesError | None, count: int) -> Entry:
    """The walk from patch to patch: `error` is what ended it, None where it came to the end."""
    done = list(steps)
    lines = [
        f"{step.patch.stem}: built in {step.build_seconds:.0f} s; {step.verdict.status}:"
        f" {step.verdict.why}"
        for step in done
    ]
    lines += [line for step in done for line in step.warnings]
    if error:
        entry = of_error(EACH, error)
        at = f"{len(done) + 1} of {count}: {entry.summary}"
        return Entry(EACH, entry.status, at, "\n".join([*lines, entry.details]).strip())
    if bad := [n for n, step in enumerate(done, start=1) if step.fell]:
        step = done[bad[0] - 1]
        why = step.warnings[0] if step.warnings else f"{step.verdict.status}: {step.verdict.why}"
        word = "fail" if step.warnings else _word(step.verdict.status)
        return Entry(EACH, word, f"{bad[0]} of {count}: {why}", "\n".join(lines))
    return Entry(
        EACH, "pass", f"{count} build without a warning, boot, update live", "\n".join(lines)
    )

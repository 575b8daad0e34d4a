# SPDX-License-Identifier: GPL-2.0-only
"""What all mails share: stages by name, the trial that is shown, lines of 72 columns. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from common.judge.stored_run import StoredRun
from common.judge.verdict import TrialVerdict
from common.record.dialogue import Side
from common.record.evidence import Trial
from common.report.shell_lines import shell_lines
from common.text import printable, without_home

WIDTH = 72
NOT_RECORDED = "not recorded"


def stage_name(one: StoredRun) -> str:
    """Number of the run's stage, and its workload where that is not the stage's own VMM."""
    workload = one.stage.workload
    return f"stage {one.run.stage}{'' if workload == 'vmm' else f' {workload}'}"


def run_name(one: StoredRun, runs: Sequence[StoredRun]) -> str:
    """The stage's name, with the run's id where another of `runs` is of the same stage."""
    same = [other for other in runs if stage_name(other) == stage_name(one)]
    return f"{stage_name(one)}{f', {one.name}' if len(same) > 1 else ''}"


def is_main(trial: Trial) -> bool:
    """True for a main run, false for a control."""
    return trial.setting.control is None


def worst_main(one: StoredRun) -> TrialVerdict | None:
    """The main trial to show: the first that did not pass, else the first."""
    trials = one.verdict.trials
    return next((t for t in trials if t.status != "PASS"), trials[0] if trials else None)


def shown_trial(one: StoredRun) -> Trial | None:
    """The record of that trial; of a control where no main trial was run."""
    worst = worst_main(one)
    wanted = [t for t in one.run.trials if worst is None or t.setting.name == worst.trial]
    return wanted[0] if wanted else None


def fact(side: Side | None, key: str) -> str:
    """What the workload said on that side."""
    return side.facts.get(key, NOT_RECORDED) if side else NOT_RECORDED


def shell(words: Sequence[str]) -> list[str]:
    """A command line for a shell, in lines of a mail."""
    return shell_lines([without_home(word) for word in words], WIDTH)


def wrap(text: str, first: str = "", then: str | None = None) -> list[str]:
    """Lines of a mail, the first after `first`, the others after `then` (default: `first`)."""
    return textwrap.wrap(
        without_home(text),
        WIDTH,
        initial_indent=first,
        subsequent_indent=first if then is None else then,
        break_on_hyphens=False,
    ) or [first.rstrip()]


def body(text: str, *, quoted: int = WIDTH) -> str:
    """The text as it may stand in a mail: nothing in it steers a terminal, no line is longer.

    `quoted`: the columns that a line beginning with "> " may have.
    """
    lines = printable(text).splitlines()
    return "".join(
        f"{line.rstrip()}\n"
        for long in lines
        for line in _at_most(long, quoted if long.startswith("> ") else WIDTH)
    )


def _at_most(line: str, width: int) -> Iterable[str]:
    """The last resort for what nothing above could wrap."""
    return textwrap.wrap(line, width, drop_whitespace=False) if len(line) > width else [line]

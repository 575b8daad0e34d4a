# SPDX-License-Identifier: GPL-2.0-only
"""Small deliberate lies, each of which has to be caught by the check that claims to.

A control tells the workload to do something wrong, and everybody knows of it. A *lie* is a
patch that does something wrong and says that all is well: in the workload, in the harness, or
in the kernel. It is put into a copy of this checkout, that copy makes a run, and what the copy
says of it is not asked: the checkout without the lie judges the run from its raw files. There
the lie's own check must fail, and no check that the lie is to deceive; or else the judge must
refuse the run, in the words that the lie's file gives.

A lie is a file tests/sabotage/NAME.patch: a header like a mail's (below), a blank line, words,
and a diff against the checkout; what is below linux/ in it becomes one patch more on the
kernels of the stage.

    Run: 1                    the stage, and options of `run` for it
    Caught-by: same_pages     the check that must fail, or
    Refused-with: TEXT        what the judge must say
    May-break: a, b           checks that may fail as well
    Claims: PASS              the copy itself must end with exit status 0
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from common.errors import HarnessError, StagesError, UsageError
from common.paths import CHECKOUT
from common.stage import load_stage
from common.stored_run import opened
from common.verdict import Verdict
from kernel.worktree import apply_patch

FOLDER = CHECKOUT / "tests" / "sabotage"
_KERNEL = "linux/"
_DIFF = re.compile(r"^(?=diff --git a/)", re.MULTILINE)
_FIELDS = {"SPDX-License-Identifier", "Run", "Caught-by", "Refused-with", "May-break", "Claims"}
_RUN_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True)
class Lie:
    """One lie, as its file says. Either `caught_by` or `refused_with` is set."""

    name: str
    file: Path
    stage: int
    options: tuple[str, ...]
    caught_by: str | None
    refused_with: str | None
    may_break: frozenset[str]
    claims_pass: bool
    checkout_diff: str
    kernel_diff: str

    @property
    def catcher(self) -> str:
        """Who must catch it, for people."""
        return self.caught_by or "judge"


@dataclass(frozen=True)
class Finding:
    """What became of a lie: caught or not, and what was seen, in a sentence."""

    lie: Lie
    caught: bool
    seen: str


def read_lie(file: Path) -> Lie:
    """The lie of a file. Raises HarnessError where the file cannot be meant so."""
    head, *diffs = _DIFF.split(file.read_text())
    fields = HeaderParser().parsestr(head)
    run = shlex.split(fields.get("Run", ""))
    caught_by, refused_with = fields.get("Caught-by"), fields.get("Refused-with")
    if unknown := set(fields.keys()) - _FIELDS:
        raise HarnessError(f"{file.name}: a lie has no field {sorted(unknown)[0]}")
    if not run or not run[0].isdigit() or (caught_by is None) is (refused_with is None):
        raise HarnessError(f"{file.name}: a lie has Run, and one of Caught-by and Refused-with")
    names = [name.strip() for name in fields.get("May-break", "").split(",")]
    may_break = frozenset(name for name in names if name)
    known = {check.name for check in load_stage(int(run[0])).checks}
    for name in sorted(may_break | {caught_by or refused_with or ""}):
        if name not in known and name != refused_with:
            raise HarnessError(f"{file.name}: stage {run[0]} has no check {name!r}")
    kernel = [diff for diff in diffs if diff.startswith(f"diff --git a/{_KERNEL}")]
    return Lie(
        name=file.stem,
        file=file,
        stage=int(run[0]),
        options=tuple(run[1:]),
        caught_by=caught_by,
        refused_with=refused_with,
        may_break=may_break,
        claims_pass=fields.get("Claims") == "PASS",
        checkout_diff="".join(diff for diff in diffs if diff not in kernel),
        kernel_diff=re.sub(rf"(?<=[ ][ab]/){_KERNEL}", "", "".join(kernel)),
    )


def lies(names: tuple[str, ...] = (), folder: Path = FOLDER) -> tuple[Lie, ...]:
    """All lies by name, or those of `names`. Raises UsageError naming those there are."""
    found = {file.stem: file for file in sorted(folder.glob("*.patch"))}
    for name in names:
        if name not in found:
            raise UsageError(f"there is no lie {name!r}; there are: {', '.join(found)}")
    return tuple(read_lie(found[name]) for name in names or found)


def plant(lie: Lie, checkout: Path) -> None:
    """A copy of this checkout at `checkout`, with the lie in it; PatchError if it does not apply.

    The kernel's part becomes the last patch of the stage's series.
    """
    hidden = shutil.ignore_patterns(".*", "__pycache__")
    shutil.copytree(CHECKOUT, checkout, ignore=hidden, symlinks=True)
    if lie.checkout_diff:
        patch = checkout.parent / f"{lie.name}.patch"
        patch.write_text(lie.checkout_diff)
        apply_patch(checkout, patch)
    if lie.kernel_diff:
        series = checkout / "kernel" / "series" / f"{lie.stage:02}_zz_sabotage"
        series.mkdir()
        (series / f"0001-{lie.name}.patch").write_text(lie.kernel_diff)


def tell(lie: Lie, workspace: Path) -> Finding:
    """Run the lie in `workspace`, an empty folder, and have its run judged by this checkout.

    Raises StagesError when the lie does not apply, does not build, or leaves no run to judge.
    """
    checkout, runs = workspace / "checkout", workspace / "runs"
    plant(lie, checkout)
    command = [sys.executable, "-P", "-m", "common", "run", str(lie.stage), "--no-controls"]
    done = subprocess.run(
        [*command, *lie.options],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout), "KEXEC_STAGES_RUNS": str(runs)},
        capture_output=True,
        text=True,
        timeout=_RUN_SECONDS,
        check=False,
    )
    if not (runs / "latest").exists():
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        told = [n for n, line in enumerate(said) if line.startswith("kexec-stages:")]
        last = told[-1] if told else -1
        raise HarnessError(
            f"{lie.name} left no run: {said[last].removeprefix('kexec-stages: ')}",
            details=said[last + 1 :] if told else said[-5:-1],
        )
    if lie.claims_pass and done.returncode:
        raise HarnessError(f"{lie.name} is no lie: its own copy ends with {done.returncode}, not 0")
    return find_out(lie, runs / "latest")


def find_out(lie: Lie, run: Path) -> Finding:
    """Judge the lie's run from its raw files, and say whether it was caught as it must be."""
    try:
        with opened(str(run)) as stored:
            verdict = stored.verdict
    except UsageError as error:
        seen = f"judge: {error}"
        return Finding(lie, lie.refused_with is not None and lie.refused_with in str(error), seen)
    return weigh(lie, verdict)


def weigh(lie: Lie, verdict: Verdict) -> Finding:
    """Whether the verdict is what the lie's file says: its check fails, and none that may not."""
    answers = {a.check: a.outcome for trial in verdict.trials for a in trial.answers}
    broken = [name for name, outcome in answers.items() if outcome.status != "PASS"]
    told = f"{verdict.status}: {verdict.why}"
    if verdict.status != "FAIL" or lie.caught_by not in broken:
        fell = f"; fell: {', '.join(broken)}" if broken else ""
        return Finding(lie, False, f"{lie.catcher} did not notice; {told}{fell}")
    if strangers := [name for name in broken if name not in {lie.caught_by, *lie.may_break}]:
        return Finding(lie, False, f"it breaks what it should not: {', '.join(strangers)}")
    outcome = answers[lie.caught_by]
    return Finding(lie, True, f"expected {outcome.expected}; seen {outcome.seen}")


def try_to_tell(lie: Lie, workspace: Path) -> Finding | StagesError:
    """As `tell`, with the error as a value: the other lies are tried all the same."""
    workspace.mkdir()
    try:
        return tell(lie, workspace)
    except StagesError as error:
        return error

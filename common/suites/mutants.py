# SPDX-License-Identifier: GPL-2.0-only
"""Deliberate faults, each of which its designated check must notice.

A control tells the workload to do something wrong, and everybody knows of it. A *mutant* is a
patch that does something wrong and says that all is well: in the workload, in the harness, or
in the kernel. It is put into a copy of this checkout, that copy makes a run, and what the copy
says of it is not asked: the checkout without the mutant judges the run from its raw files.
There the mutant's own check must fail, and no check that it is to deceive; or else the judge
must refuse the run, in the words that the mutant's file gives.

A mutant is a file tests/mutants/NAME.patch: a header like a mail's (below), a blank line, words,
and a diff against the checkout; what is below linux/ in it becomes one patch more on the
kernels of the stage.

    Run: 1                    the stage, and options of `run` for it; --control is one of them
    Kind: WORDS               the kind of fault that it stands for
    Origin: WORDS             the commit or report that it is after, where there is one
    Caught-by: same_pages     the check that must fail; "status CRASHED" for a run that ends so; or
    Refused-with: TEXT        what the judge must say
    Says: TEXT                what the verdict must name as well
    May-break: a, b           checks that may fail as well
    Claims: PASS              the copy itself must end with exit status 0

A patch of somebody else's, named by its path, is a mutant too: of the kernel, without a header,
tried with the main run of a stage. Any failure is good enough for it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from email.parser import HeaderParser
from pathlib import Path

from common.errors import HarnessError, StagesError, UsageError
from common.judge.stored_run import opened
from common.judge.verdict import Verdict
from common.paths import CHECKOUT
from common.stage.declaration import Workload
from common.stage.loading import load_stage
from common.stage.series_folder import series_patches
from kernel.source.worktree import apply_patch

FOLDER = CHECKOUT / "tests" / "mutants"
_KERNEL = "linux/"
_STATUS = "status "
_DIFF = re.compile(r"^(?=diff --git a/)", re.MULTILINE)
_PLAIN_DIFF = re.compile(r"^(?=--- \S.*\n\+\+\+ \S.*\n@@ )", re.MULTILINE)
_FIELDS = {
    "SPDX-License-Identifier",
    "Run",
    "Kind",
    "Origin",
    "Caught-by",
    "Refused-with",
    "Says",
    "May-break",
    "Claims",
}
_RUN_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One mutant, as its file says. Of somebody else's patch no one is known who must notice."""

    name: str
    kind: str
    stage: int
    options: tuple[str, ...]
    caught_by: str | None
    refused_with: str | None
    says: str
    may_break: frozenset[str]
    claims_pass: bool
    checkout_diff: str
    kernel_diff: str

    @property
    def workload(self) -> Workload:
        """Of which workload the stage's run is."""
        return _workload_of(self.options)

    @property
    def catcher(self) -> str:
        """Who must notice it, for people."""
        return self.caught_by or ("judge" if self.refused_with else "any check")


@dataclass(frozen=True)
class Finding:
    """What became of a mutant: noticed or not, by whom, and what was seen, in a sentence."""

    mutant: Mutant
    caught: bool
    by: str
    seen: str
    beside: tuple[str, ...] = ()
    """Checks that failed as well, whether or not the mutant's file allows it."""

    @property
    def strangers(self) -> tuple[str, ...]:
        """Those of `beside` that its file does not name."""
        return tuple(name for name in self.beside if name not in self.mutant.may_break)


def _workload_of(options: Sequence[str]) -> Workload:
    return "qemu" if "qemu" in options else "vmm"


def read_mutant(file: Path) -> Mutant:
    """The mutant of a file. Raises HarnessError where the file cannot be meant so."""
    head, *diffs = _DIFF.split(file.read_text())
    fields = HeaderParser().parsestr(head)
    run = shlex.split(fields.get("Run", ""))
    caught_by, refused_with = fields.get("Caught-by"), fields.get("Refused-with")
    if unknown := set(fields.keys()) - _FIELDS:
        raise HarnessError(f"{file.name}: a mutant has no field {sorted(unknown)[0]}")
    if not run or not run[0].isdigit() or (caught_by is None) is (refused_with is None):
        raise HarnessError(f"{file.name}: a mutant has Run, and one of Caught-by and Refused-with")
    may_break = frozenset(filter(None, map(str.strip, fields.get("May-break", "").split(","))))
    known = {check.name for check in load_stage(int(run[0]), _workload_of(run)).checks}
    for name in sorted(may_break | {caught_by or ""}):
        if name and name not in known and not name.startswith(_STATUS):
            raise HarnessError(f"{file.name}: stage {run[0]} has no check {name!r}")
    if not diffs:
        raise HarnessError(f"{file.name}: a mutant has a diff of git's")
    kernel = [diff for diff in diffs if diff.startswith(f"diff --git a/{_KERNEL}")]
    return Mutant(
        name=file.stem,
        kind=fields.get("Kind", ""),
        stage=int(run[0]),
        options=tuple(run[1:]),
        caught_by=caught_by,
        refused_with=refused_with,
        says=fields.get("Says", ""),
        may_break=may_break,
        claims_pass=fields.get("Claims") == "PASS",
        checkout_diff="".join(diff for diff in diffs if diff not in kernel),
        kernel_diff=re.sub(rf"(?<=[ ][ab]/){_KERNEL}", "", "".join(kernel)),
    )


def foreign_mutant(where: Path, stage: int) -> Mutant:
    """A patch of somebody else's to the kernel, or a folder of them with Kconfig fragments.

    Raises UsageError where there is no patch.
    """
    folder = where if where.is_dir() else where.parent
    patches = series_patches(where) if where.is_dir() else (where,)
    diffs = [d for p in patches for d in _diffs(p.read_text())]
    if not diffs:
        raise UsageError(f"{where} has no patch: a mutant is a diff to the kernel's source")
    fragments = sorted(folder.glob("*.config")) if where.is_dir() else []
    return Mutant(
        name=where.stem,
        kind="",
        stage=stage,
        options=tuple(word for f in fragments for word in ("--config", str(f.resolve()))),
        caught_by=None,
        refused_with=None,
        says="",
        may_break=frozenset(),
        claims_pass=False,
        checkout_diff="",
        kernel_diff="".join(diffs),
    )


def _diffs(text: str) -> list[str]:
    """The diffs of a patch, without what is said before the first: git's, or as diff -u writes."""
    return _DIFF.split(text)[1:] or _PLAIN_DIFF.split(text)[1:]


def mutants(names: Sequence[str] = (), *, stage: int = 1) -> tuple[Mutant, ...]:
    """All mutants by name, or those of `names`; a name with a / is a path, tried with `stage`.

    Raises UsageError naming those there are.
    """
    found = {file.stem: file for file in sorted(FOLDER.glob("*.patch"))}
    for name in names:
        if not (name in found or ("/" in name and Path(name).exists())):
            raise UsageError(
                f"there is no mutant {name!r}; give the path of a patch (with a /), or one of:"
                f" {', '.join(found)}"
            )
    return tuple(
        read_mutant(found[name]) if name in found else foreign_mutant(Path(name), stage)
        for name in names or found
    )


def apply_mutant(mutant: Mutant, checkout: Path) -> None:
    """A copy of this checkout at `checkout`, with the mutant in it; PatchError if it cannot be.

    The kernel's part becomes the last patch of the stage's series.
    """
    hidden = shutil.ignore_patterns(".*", "__pycache__")
    shutil.copytree(CHECKOUT, checkout, ignore=hidden, symlinks=True)
    if mutant.checkout_diff:
        patch = checkout.parent / f"{mutant.name}.patch"
        patch.write_text(mutant.checkout_diff)
        apply_patch(checkout, patch)
    if mutant.kernel_diff:
        series = checkout / "kernel" / "series" / f"{mutant.stage:02}_zz_mutant"
        series.mkdir()
        (series / f"0001-{mutant.name}.patch").write_text(mutant.kernel_diff)


def run_mutant(mutant: Mutant, workspace: Path) -> Finding:
    """Run the mutant in `workspace`, an empty folder; have its run judged by this checkout.

    Raises StagesError when it does not apply, does not build, or leaves no run to judge.
    """
    checkout, runs = workspace / "checkout", workspace / "runs"
    apply_mutant(mutant, checkout)
    command = [sys.executable, "-P", "-m", "common", "run", str(mutant.stage)]
    if "--control" not in mutant.options:
        command.append("--no-controls")
    done = subprocess.run(
        [*command, *mutant.options],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout), "KEXEC_STAGES_RUNS": str(runs)},
        capture_output=True,
        text=True,
        timeout=_RUN_SECONDS,
        check=False,
    )
    if not (runs / "latest").exists():
        said = done.stderr.strip().splitlines() or ["it printed nothing"]
        told = [n for n, line in enumerate(said) if line.startswith("kexec-stages:")]
        last = told[-1] if told else -1
        raise HarnessError(
            f"{mutant.name} left no run: {said[last].removeprefix('kexec-stages: ')}",
            details=said[last + 1 :] if told else said[-5:-1],
        )
    if mutant.claims_pass and done.returncode:
        raise HarnessError(
            f"{mutant.name} does not pass in its own copy, which ends with {done.returncode}, not 0"
        )
    return find_out(mutant, runs / "latest")


def find_out(mutant: Mutant, run: Path) -> Finding:
    """Judge the mutant's run from its raw files, and say whether it was noticed as it must be."""
    try:
        with opened(str(run)) as stored:
            verdict = stored.verdict
    except UsageError as error:
        refused = mutant.refused_with is not None and mutant.refused_with in str(error)
        return Finding(mutant, refused or mutant.catcher == "any check", "judge", str(error))
    return evaluate(mutant, verdict)


def evaluate(mutant: Mutant, verdict: Verdict) -> Finding:
    """Whether the verdict is what the mutant's file says, and in the words that it gives."""
    finding = _evaluate(mutant, verdict)
    if finding.caught and mutant.says not in verdict.why:
        seen = f"does not name {mutant.says!r}; {verdict.status}: {verdict.why}"
        return replace(finding, caught=False, seen=seen)
    return finding


def _evaluate(mutant: Mutant, verdict: Verdict) -> Finding:
    """Its check fails, and none that may not."""
    answers = {a.check: a.outcome for trial in verdict.trials for a in trial.answers}
    broken = [
        name for name, outcome in answers.items() if outcome.status not in ("PASS", "DISTURBED")
    ]
    told = f"{verdict.status}: {verdict.why}"
    ended = verdict.status in ("CRASHED", "TIMEOUT") and mutant.catcher == "any check"
    if ended or mutant.catcher.startswith(_STATUS):
        status = f"{_STATUS}{verdict.status}"
        return Finding(mutant, ended or status == mutant.catcher, status, told)
    by = mutant.caught_by or next(iter(broken), mutant.catcher)
    if verdict.status != "FAIL" or by not in broken or mutant.refused_with:
        failed = f"; failed: {', '.join(broken)}" if broken else ""
        return Finding(mutant, False, by, f"did not notice; {told}{failed}")
    finding = Finding(
        mutant,
        True,
        by,
        f"expected {answers[by].expected}; seen {answers[by].seen}",
        tuple(name for name in broken if name != by),
    )
    if mutant.caught_by and finding.strangers:
        seen = f"it breaks what it should not: {', '.join(finding.strangers)}"
        return replace(finding, caught=False, seen=seen)
    return finding


def try_mutant(mutant: Mutant, workspace: Path) -> Finding | StagesError:
    """As `run_mutant`, with the error as a value: the others are tried all the same."""
    workspace.mkdir()
    try:
        return run_mutant(mutant, workspace)
    except StagesError as error:
        return error

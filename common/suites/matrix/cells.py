# SPDX-License-Identifier: GPL-2.0-only
"""Kernels x stages x controls: the cells of a matrix, what each left, and the table of them all.

A cell is one run: the main run of a stage on a pair of kernels, or one control of it. Whoever runs
it leaves NAME.json and, where there was a run, its bundle NAME.zip; the table is made of these
alone, wherever they were made, and every verdict in it is computed anew from the bundle.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from tabulate import tabulate

from common.errors import Exit, StagesError, UsageError
from common.judge.stored_run import opened
from common.judge.verdict import EXIT_OF
from common.record.evidence import Trial
from common.stage.configured import configured
from common.stage.declaration import Stage
from common.stage.kernel_choice import KernelChoice, Origin
from common.stage.loading import load_stage

GITHUB_JOBS, GITLAB_JOBS = 256, 200
"""How many jobs one matrix may have: GitHub's limit for a workflow run, GitLab's for a job."""

_OF_ERROR = {Exit.NO_KERNEL: "NO KERNEL", Exit.SKIP: "SKIP"}
EXITS: Mapping[str, Exit] = {
    **{str(status): exit for status, exit in EXIT_OF.items()},
    "NO KERNEL": Exit.NO_KERNEL,
    "NO RESULT": Exit.HARNESS,
}
_WORST_FIRST = (
    Exit.FAIL,
    Exit.CRASHED,
    Exit.TIMEOUT,
    Exit.OTHER_CODE,
    Exit.HARNESS,
    Exit.NO_KERNEL,
    Exit.SKIP,
)


@dataclass(frozen=True)
class Cell:
    """One run; `outgoing` and `incoming` are what the user calls the kernels."""

    stage: int
    outgoing: str
    incoming: str
    control: str | None
    choice: KernelChoice
    chain: int = 1

    @property
    def name(self) -> str:
        """What its job and its files are called."""
        what = self.control or "main"
        return f"stage-{self.stage}.{self.outgoing}-to-{self.incoming}.{what}"

    def load(self) -> Stage:
        """The stage as the cell runs it."""
        return configured(load_stage(self.stage), choice=self.choice, chain=self.chain)


@dataclass(frozen=True)
class Result:
    """What became of a cell. `status` is a run's, or says why there is none."""

    cell: str
    status: str
    why: str
    headline: Mapping[str, str]
    main: Trial | None = None
    """The trial that counts, of a cell that is a main run."""
    fell: frozenset[str] = frozenset()
    """The checks that said FAIL of it: where there is no data nothing is known to be corrupt."""


def cells_of(
    kernels: Mapping[str, Origin],
    stages: Sequence[int],
    base: KernelChoice,
    *,
    controls: bool,
    chain: int = 1,
) -> tuple[Cell, ...]:
    """Every pair of kernels, in both directions and with itself, in every stage.

    With `controls` each control that those kernels allow is a cell of its own. A chain is of the
    stages that have one; the others go through one update.
    """
    found: list[Cell] = []
    for number, (a, b) in product(stages, product(kernels, kernels)):
        choice = replace(base, outgoing=kernels[a], incoming=kernels[b])
        updates = chain if load_stage(number).chain_controls else 1
        main = Cell(number, a, b, None, choice, updates)
        found.append(main)
        if controls:
            found += [
                Cell(number, a, b, control.name, choice, updates)
                for control in main.load().runnable_controls
            ]
    return tuple(found)


def plan_text(cells: Sequence[Cell], engine: str) -> str:
    """The cells as a job matrix of GitHub ("cell") or GitLab ("CELL"), one line of JSON.

    GitLab takes it as the included part of a child pipeline (JSON is YAML): a hidden job that a
    real one extends. Raises UsageError where there are more jobs than the engine takes.
    """
    names = [cell.name for cell in cells]
    most = GITHUB_JOBS if engine == "github" else GITLAB_JOBS
    if len(names) > most:
        raise UsageError(f"{len(names)} cells, and {engine} takes {most} jobs: split the matrix")
    if engine == "github":
        return json.dumps({"cell": names}) + "\n"
    return json.dumps({".cells": {"parallel": {"matrix": [{"CELL": names}]}}}) + "\n"


def result_of_error(error: StagesError) -> dict[str, Any]:
    """What a cell leaves that came to no run."""
    return {"status": _OF_ERROR.get(Exit(error.exit_status), "ERROR"), "why": str(error)}


def write_result(folder: Path, cell: Cell, content: Mapping[str, Any]) -> None:
    """CELL.json, whole or not at all."""
    part = folder / f".{cell.name}.json"
    part.write_text(json.dumps({"cell": cell.name, **content}) + "\n")
    part.replace(folder / f"{cell.name}.json")


def result(folders: Sequence[Path], name: str) -> Result:
    """What the cell left in one of these folders; the verdict on its bundle, where there is one."""
    bundles = found(folders, f"{name}.zip")
    if bundles:
        try:
            return _judged(name, bundles[0])
        except StagesError as error:
            return Result(name, "NO RESULT", str(error), {})
    notes = found(folders, f"{name}.json")
    try:
        said = json.loads(notes[0].read_text()) if notes else {}
        status, why = str(said["status"]), str(said["why"])
    except (OSError, ValueError, KeyError, TypeError):
        return Result(name, "NO RESULT", "no job brought anything back", {})
    if status not in ("NO KERNEL", "SKIP", "ERROR"):
        return Result(name, "NO RESULT", f"{status}, but there is no bundle to show it", {})
    return Result(name, status, why, {})


def _judged(name: str, bundle: Path) -> Result:
    with opened(str(bundle)) as one:
        verdict, planned = one.vouched, one.run.planned
        stage, _, what = parts(name)
        if (stage, (what if what == "main" else f"control-{what}",)) != (
            str(one.run.stage),
            planned,
        ):
            raise UsageError(f"{bundle}: its run is of stage {one.run.stage}, {planned[0]}")
        judged = verdict.trials[0] if verdict.trials else None
        main = one.run.trial(judged.trial) if judged else None
        headline = one.stage.headline(main) if main and verdict.status == "PASS" else {}
        answers = judged.answers if judged else ()
        fell = frozenset(a.check for a in answers if a.outcome.status == "FAIL")
        return Result(name, verdict.status, verdict.why, headline, main, fell)


def found(folders: Sequence[Path], name: str) -> list[Path]:
    """The files of that name, or that match, anywhere in these folders."""
    return [path for folder in folders for path in sorted(folder.rglob(name))]


def names_in(folders: Sequence[Path]) -> list[str]:
    """The cells that left anything in these folders."""
    found = {p.stem for f in folders for p in (*f.rglob("stage-*.json"), *f.rglob("stage-*.zip"))}
    return sorted(found)


def table(results: Sequence[Result]) -> str:
    """A row for each stage and pair: main run, controls, blackout; below it, what is not a pass."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    controls: dict[tuple[str, str], list[bool]] = {}
    for one in results:
        stage, pair, what = parts(one.cell)
        row = rows.setdefault((stage, pair), {"stage": stage, "kernels": pair, "main": "-"})
        if what == "main":
            row |= {"main": one.status, "blackout": one.headline.get("blackout", "")}
        else:
            controls.setdefault((stage, pair), []).append(one.status == "PASS")
    for key, good in controls.items():
        rows[key]["controls"] = f"{sum(good)}/{len(good)} failed as expected"
    text = tabulate([*rows.values()], headers="keys") if rows else "no cells"
    bad = [one for one in results if one.status != "PASS"]
    return "\n".join([text, "", *(f"{o.cell}: {o.status}: {o.why}" for o in bad)]).rstrip() + "\n"


def parts(cell: str) -> tuple[str, str, str]:
    """Stage, "A to B", and "main" or the control, of a cell's name."""
    stage, _, rest = cell.partition(".")
    pair, _, what = rest.rpartition(".")
    return stage.removeprefix("stage-"), pair.replace("-to-", " to "), what


def exit_of(results: Iterable[Result], *, refusal_ok: bool) -> Exit:
    """The worst of all; nothing at all is a failure of the harness."""
    passing = ("PASS", "XPASS", "XFAIL", *(("REFUSED",) if refusal_ok else ()))
    return worst(Exit.PASS if o.status in passing else EXITS[o.status] for o in results)


def worst(exits: Iterable[Exit]) -> Exit:
    """The worst of all; nothing at all is a failure of the harness."""
    seen = set(exits)
    if not seen:
        return Exit.HARNESS
    return next((exit for exit in _WORST_FIRST if exit in seen), Exit.PASS)

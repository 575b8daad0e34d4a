# SPDX-License-Identifier: GPL-2.0-only
"""Verbs that need no machine: report, judge, list. They run without QEMU and libvirt."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tabulate import tabulate

from common.errors import Exit, UsageError
from common.paths import runs_root
from common.record import Run, collect, schema_text, seal_breaches
from common.report_text import report_text
from common.stage import Stage, load_stage, stage_folders
from common.timeline_svg import timeline_svg
from common.verdict import judge as judge_run


def find_run(name: str) -> Path:
    """The folder of a run: a path, a name below the runs folder, or `latest`."""
    for folder in (Path(name), runs_root() / name):
        if folder.is_dir():
            if not (folder / "record.json").exists():
                raise UsageError(f"{folder} is no finished run: it has no record.json")
            return folder.resolve()
    raise UsageError(f"there is no run {name!r}, neither as a folder nor in {runs_root()}")


def read_record(folder: Path) -> Run:
    """The stored record of a run. Raises UsageError when it is damaged."""
    try:
        return Run.model_validate_json((folder / "record.json").read_text())
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise UsageError(f"{folder}/record.json is damaged: {first}") from None


def check_record(folder: Path) -> Run:
    """The record, after showing that it is sealed and follows from its raw files.

    Raises UsageError naming what was edited or what does not follow.
    """
    if breaches := seal_breaches(folder):
        more = f" (and {len(breaches) - 1} more)" if len(breaches) > 1 else ""
        raise UsageError(f"{folder.name} is not as it was sealed: {breaches[0]}{more}")
    run = read_record(folder)
    stage = load_stage(run.stage)
    for trial in run.trials:
        if collect(folder / trial.setting.name, witness=stage.witness) != trial:
            raise UsageError(
                f"{folder.name}: record.json says of trial {trial.setting.name} what its raw"
                " files do not"
            )
    return run


def report(arguments: argparse.Namespace) -> int:
    """Print or write the report of a stored run."""
    run = read_record(find_run(arguments.run))
    stage = load_stage(run.stage)
    if arguments.format == "json":
        text = run.model_dump_json(indent=2) + "\n"
    elif arguments.format == "svg":
        text = _picture(run, stage)
    else:
        text = report_text(run, judge_run(run, stage), stage)
    if arguments.output:
        _write_whole(arguments.output, text)
    else:
        sys.stdout.write(text)
    return Exit.PASS


def _picture(run: Run, stage: Stage) -> str:
    """The timeline of the first main trial. Raises UsageError when none reached its end."""
    for trial in run.trials:
        if trial.setting.control is None and (phases := stage.blackout(trial)):
            host = trial.setting.host
            title = f"Stage {stage.number}: the blackout, {host.accelerator} on {host.cpu}"
            return timeline_svg(phases, title=title)
    raise UsageError("this run has no main trial that went through the kexec: nothing to draw")


def _write_whole(target: Path, text: str) -> None:
    """Write a file that is never half there; a pipe or device is written as it stands."""
    if target.exists() and not target.is_file():
        target.write_text(text)
        return
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        part.write_text(text)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def judge(arguments: argparse.Namespace) -> int:
    """Judge a stored run again, from its raw files; the exit status is the verdict's."""
    run = check_record(find_run(arguments.run))
    verdict = judge_run(run, load_stage(run.stage))
    print(f"stage {verdict.stage}: {verdict.status}: {verdict.why}")
    return verdict.exit


def list_stages(arguments: argparse.Namespace) -> int:
    """Print what the stages claim, what they do not, and their controls."""
    if arguments.schema:
        sys.stdout.write(schema_text())
        return Exit.PASS
    for number in stage_folders():
        stage = load_stage(number)
        print(f"Stage {number}: {stage.title}\n")
        rows = [
            [f"{n}. {claim.text}" if check is claim.checks[0] else "", check.name, check.question]
            for n, claim in enumerate(stage.claims, start=1)
            for check in claim.checks
        ]
        print(tabulate(rows, headers=["claim", "check", "question"], maxcolwidths=[44, None, 44]))
        controls = [[c.name, c.what, ", ".join(sorted(c.breaks))] for c in stage.controls]
        print(
            "\n"
            + tabulate(
                controls,
                headers=["control", "what it does", "must break"],
                maxcolwidths=[None, 50, 30],
            )
        )
        print("\nNot claimed:\n" + "\n".join(f"- {text}" for text in stage.not_claimed) + "\n")
    return Exit.PASS

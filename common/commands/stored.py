# SPDX-License-Identifier: GPL-2.0-only
"""Verbs on what is stored or declared: no machine, no QEMU, no libvirt."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from itertools import islice
from pathlib import Path

from tabulate import tabulate

from common.bundle import pack
from common.compare import comparison, worsened
from common.errors import Exit, UsageError
from common.follows import disagreements, trials_from_raw
from common.record import Run, schema_text
from common.report_text import report_text
from common.stage import Stage, load_stage, stage_folders
from common.stored_run import opened
from common.timeline_svg import timeline_svg
from common.verdict import judge as judge_run


def report(arguments: argparse.Namespace) -> int:
    """Print or write the report of a stored run."""
    with opened(arguments.run) as stored:
        run, stage = stored.run, stored.stage
        if arguments.format == "json":
            text = run.model_dump_json(indent=2) + "\n"
        elif arguments.format == "svg":
            text = _picture(run, stage)
        else:
            text = report_text(run, stored.verdict, stage)
    if arguments.output:
        _write_whole(arguments.output, text.encode())
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


def _write_whole(target: Path, data: bytes) -> None:
    """Write a file that is never half there; a pipe or device is written as it stands."""
    if target.exists() and not target.is_file():
        with target.open("wb") as file:
            file.write(data)
        return
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        part.write_bytes(data)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def judge(arguments: argparse.Namespace) -> int:
    """Judge a run or a bundle again, from its raw files; the exit status is the verdict's."""
    with opened(arguments.run) as stored:
        if arguments.seal and arguments.seal.lower() != stored.seal:
            raise UsageError(f"{stored.name} is another run: its seal is {stored.seal}")
        trials = trials_from_raw(stored.folder, stored.stage)
        if found := list(islice(disagreements(stored.folder, stored.run, trials), 20)):
            raise UsageError(f"{stored.name}: {found[0]}", details=found[1:])
        verdict = judge_run(stored.run.model_copy(update={"trials": trials}), stored.stage)
        print(f"stage {verdict.stage}: {verdict.status}: {verdict.why}")
        ran = {control.control for control in verdict.controls}
        if lacking := [c.name for c in stored.stage.controls if c.name not in ran]:
            print(f"controls that were not run: {', '.join(lacking)}")
        print(f"seal {stored.seal}")
    return verdict.exit


def compare(arguments: argparse.Namespace) -> int:
    """Print what changed from one run of a stage to another; 1 when anything got worse."""
    with opened(arguments.before) as before, opened(arguments.after) as after:
        if before.run.stage != after.run.stage:
            raise UsageError(
                f"{before.name} is of stage {before.run.stage} and {after.name} of stage"
                f" {after.run.stage}: there is nothing to compare"
            )
        names, runs = (before.name, after.name), (before.run, after.run)
        verdicts = (before.verdict, after.verdict)
        sys.stdout.write(comparison(names, runs, verdicts, after.stage))
    return Exit.FAIL if worsened(*verdicts) else Exit.PASS


def bundle(arguments: argparse.Namespace) -> int:
    """Write a run as one file; prints its name, its digest, and the run's seal."""
    with opened(arguments.run) as stored:
        data = pack(stored.folder)
        target = arguments.output or Path(f"{stored.name}.zip")
        _write_whole(target, data)
        print(f"{target}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")
        print(f"seal {stored.seal}")
    return Exit.PASS


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

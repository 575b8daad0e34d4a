# SPDX-License-Identifier: GPL-2.0-only
"""Runs the cells of a matrix: one in this process, or many in parallel by pytest-xdist."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import HarnessError, StagesError
from common.host.accel import probe
from common.judge.bundle import pack
from common.machine.hypervisor import Hypervisor
from common.paths import CHECKOUT
from common.run.kernels import kernels_of
from common.run.options import RunOptions
from common.run.setup import TrialPlan
from common.run.stage_run import execute_run
from common.run.workers import jobs_here
from common.suites.matrix.cells import Cell, result_of_error, write_result
from common.suites.matrix.written import note_written


def run_cells(
    wanted: Sequence[Cell],
    options: RunOptions,
    folder: Path,
    *,
    connect: str | None = None,
    jobs: int | None = None,
    formats: bool = False,
) -> None:
    """Each cell leaves its result in `folder`; kernels are built before a machine starts.

    Without `jobs`, as many side by side as the host has cores and memory for. With `formats` a
    note is left on what each outgoing kernel writes.
    """
    runnable = _built(wanted, folder)
    alone = len(runnable) == 1
    if alone or formats:  # one process opens libvirt's embedded driver once
        with Hypervisor(connect) as hypervisor:
            if formats:
                note_written(runnable, probe(wanted=options.accelerator), hypervisor, folder)
            if alone:
                run_cell(runnable[0], options, hypervisor, folder)
    if runnable and not alone:
        stages = (cell.load() for cell in runnable)
        _run_side_by_side(runnable, jobs or jobs_here(stages, options.numbers), folder)


def _built(wanted: Sequence[Cell], folder: Path) -> list[Cell]:
    """The cells whose kernels are in the cache now; of the others it is noted why they are not."""
    runnable = []
    for cell in wanted:
        stage = cell.load()
        try:
            controls = [stage.control(cell.control)] if cell.control else []
            kernels_of(stage, cell.choice, controls=controls)
            runnable.append(cell)
        except StagesError as error:
            print(f"{cell.name}: {error}", *error.details[:8], sep="\n  ", file=sys.stderr)
            write_result(folder, cell, result_of_error(error))
    return runnable


def run_cell(cell: Cell, options: RunOptions, hypervisor: Hypervisor, folder: Path) -> str:
    """The cell's status, after its run; its bundle and a note of it are in the results folder."""
    stage = cell.load()
    plan = TrialPlan("main")
    if cell.control:
        plan = TrialPlan(f"control-{cell.control}", stage.control(cell.control))
    try:
        _record, verdict, run = execute_run(stage, [plan], cell.choice, options, hypervisor)
    except StagesError as error:
        content = result_of_error(error)
        write_result(folder, cell, content)
        return str(content["status"])
    part = folder / f".{cell.name}.zip"
    part.write_bytes(pack(run))
    part.replace(folder / f"{cell.name}.zip")
    write_result(folder, cell, {"status": verdict.status, "why": verdict.why, "run": run.name})
    return verdict.status


def _run_side_by_side(runnable: Sequence[Cell], jobs: int, folder: Path) -> None:
    """One worker process a machine; which cell comes next is xdist's to say."""
    print(f"{len(runnable)} cells, {min(jobs, len(runnable))} side by side", file=sys.stderr)
    words = [*sys.argv[1:], "--results", str(folder)]
    environment = os.environ | {
        "KEXEC_STAGES_MATRIX_WORDS": json.dumps(words),
        "KEXEC_STAGES_MATRIX_CELLS": json.dumps([cell.name for cell in runnable]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-P", "-m", "pytest", "-v", "--no-header", "--no-summary"]
    command += ["-p", "no:cacheprovider", "-n", str(min(jobs, len(runnable)))]
    command += [
        "--dist",
        "worksteal",
        "--tb=no",
        str(CHECKOUT / "common" / "cli" / "matrix_worker.py"),
    ]
    done = subprocess.run(
        command, cwd=CHECKOUT, env=environment, stdout=sys.stderr, check=False
    ).returncode
    # 1 is pytest's word for cells that are no pass, of which the table tells
    if done not in (0, 1):
        raise HarnessError(f"pytest ended with status {done}; what it said is above")

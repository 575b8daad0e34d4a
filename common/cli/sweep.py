# SPDX-License-Identifier: GPL-2.0-only
"""The sweep verb: every call of a live update, cut wherever something in it can fail."""

from __future__ import annotations

import argparse
import sys
import time

from common.cli.kernel_options import chosen_kernels
from common.errors import Exit
from common.host.accel import probe
from common.machine.hypervisor import Hypervisor
from common.run.stage_run import keep, new_run_folder
from common.stage.loading import load_stage
from common.suites.sweep.run import checked_point, run_sweep, sweep_choice
from common.suites.sweep.table import table, uncut, violations


def sweep(arguments: argparse.Namespace) -> int:
    """All points of a stage's sweep, or the one that is asked for; 1 where one is violated."""
    stage = load_stage(arguments.stage)
    point = checked_point(arguments.point) if arguments.point else None
    stage, choice = sweep_choice(stage, chosen_kernels(arguments))
    begun = time.monotonic()
    with Hypervisor(arguments.connect) as hypervisor:
        folder = new_run_folder("sweep", hypervisor)
        found, ended = run_sweep(
            stage,
            choice,
            hypervisor,
            probe(wanted=arguments.accel),
            folder,
            point=point,
            on_line=_tell,
        )
        folder = keep(folder)
    print(table(found))
    for line in violations(found, stage.number):
        print(line)
    for line in uncut(found, point):
        print(line)
    print(f"{time.monotonic() - begun:.0f} s. Console, dialogue: {folder}", file=sys.stderr)
    if ended.detail:
        at = f" at {found.unfinished}" if found.unfinished else ""
        print(f"{ended.detail}{at}")
        # What a kernel has broken may keep the workload from going on.
        return Exit.FAIL if ended.status is Exit.HARNESS and found.violations else ended.status
    if found.violations:
        return Exit.FAIL
    return Exit.PASS if found.whole(point) else Exit.HARNESS


def _tell(line: str) -> None:
    """Which kernel is up, and when a call is done."""
    for word in ("kernel.release=", "swept."):
        if line.startswith(f"# {word}"):
            print(f"sweep: {line.removeprefix('# ')}", file=sys.stderr, flush=True)

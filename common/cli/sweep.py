# SPDX-License-Identifier: GPL-2.0-only
"""The sweep verb: calls that are cut wherever something in them can fail; records that are
damaged on their way from one kernel to the next."""

from __future__ import annotations

import argparse
import signal
import sys
import time

from common.cli.kernel_options import chosen_kernels
from common.errors import Exit, UsageError
from common.host.accel import probe
from common.machine.hypervisor import Hypervisor
from common.run.kernels import kernels_of
from common.run.stage_run import final_name, run_folder
from common.stage.configured import configured
from common.stage.loading import load_stage
from common.suites.damage.lives import Bench
from common.suites.damage.points import checked_name
from common.suites.damage.run import Asked, checked_stage, judged, new_folder, run_points, stored
from common.suites.damage.table import line, summary
from common.suites.sweep.run import calls_of, checked_point, run_sweep, sweep_choice
from common.suites.sweep.table import table, uncut, violations

INTERRUPTED = 128 + signal.SIGINT
_SEED = 1


def sweep(arguments: argparse.Namespace) -> int:
    """All points of a stage's sweep, or the one that is asked for; 1 where one is violated."""
    if arguments.damage:
        return _damage(arguments)
    if arguments.random or arguments.seed or arguments.resume or arguments.lane != "default":
        raise UsageError("--random, --seed, --resume and --lane go with --damage")
    stage = load_stage(arguments.stage)
    point = checked_point(arguments.point, calls_of(stage)) if arguments.point else None
    stage, choice = sweep_choice(stage, chosen_kernels(arguments))
    begun = time.monotonic()
    with Hypervisor(arguments.connect) as hypervisor:
        accelerator = probe(wanted=arguments.accel)
        with run_folder("sweep", hypervisor) as folder:
            found, ended = run_sweep(
                stage, choice, hypervisor, accelerator, folder, point=point, on_line=_tell
            )
    print(table(found))
    for told in (*violations(found, stage.number), *uncut(found, point)):
        print(told)
    print(
        f"{time.monotonic() - begun:.0f} s. Console, dialogue: {final_name(folder)}",
        file=sys.stderr,
    )
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


def _damage(arguments: argparse.Namespace) -> int:
    """Every field of every record, or the point that is asked for; 1 where one is violated."""
    asked = _asked(arguments)
    choice = chosen_kernels(arguments)
    stage = checked_stage(load_stage(arguments.stage))
    stage = configured(stage, lane=arguments.lane, choice=choice)
    folder = arguments.resume
    begun = time.monotonic()
    try:
        if folder is None or judged(folder)[1]:
            kernels = kernels_of(stage, choice)
            with Hypervisor(arguments.connect) as hypervisor:
                folder = folder or new_folder(stage)
                bench = Bench(stage, kernels, probe(wanted=arguments.accel), hypervisor)
                run_points(bench, asked, folder, on_point=lambda one: print(line(one), flush=True))
    except KeyboardInterrupt:
        if folder:
            print(f"interrupted; the rest: add --resume {folder}", file=sys.stderr)
        return INTERRUPTED
    verdicts, left = judged(folder)
    print(summary(verdicts))
    print(f"{time.monotonic() - begun:.0f} s. Raw files: {folder}", file=sys.stderr)
    if any(verdict.status == "VIOLATION" for verdict in verdicts):
        return Exit.FAIL
    return Exit.HARNESS if left else Exit.PASS


def _asked(arguments: argparse.Namespace) -> Asked:
    """What is to be tried; of a stored sweep, what it was to try."""
    if arguments.resume:
        if arguments.point or arguments.random or arguments.seed:
            raise UsageError(
                "--resume keeps the options of its sweep: no --point, --random, --seed"
            )
        return stored(arguments.resume, arguments.stage)
    point = checked_name(arguments.point) if arguments.point else None
    return Asked(arguments.seed or _SEED, arguments.random or 0, point)

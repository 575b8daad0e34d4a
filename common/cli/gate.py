# SPDX-License-Identifier: GPL-2.0-only
"""The gate verb: the stages in order, or the kernel's own live update tests, as KTAP."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from common.arch.known import DEFAULT
from common.cli.kernel_options import chosen_kernels
from common.cli.options import known_splats, run_options
from common.cli.run import told_runnable
from common.errors import Exit, StagesError, UsageError
from common.host.accel import probe
from common.judge.known_splats import Judged, KnownSplat, judge_with, unmatched
from common.judge.stored_run import opened
from common.judge.verdict import EXIT_OF, RunStatus, Verdict
from common.machine.hypervisor import Hypervisor
from common.report import ktap
from common.report.comparison import worsened
from common.run.setup import plan_trials
from common.run.stage_run import execute_run, final_name, run_folder
from common.stage.append import check
from common.stage.configured import configured
from common.stage.loading import all_stages, stage_folders
from common.stage.on_architecture import not_there
from common.suites.upstream.build import SUITES
from common.suites.upstream.ktap import suite_result
from common.suites.upstream.run import run_suites


def gate(arguments: argparse.Namespace) -> int:
    """Stages in order up to --until, stopping at the first that falls; KTAP on stdout."""
    if arguments.upstream:
        if arguments.append or arguments.splats:
            option = "--append" if arguments.append else "--splats"
            raise UsageError(f"{option} is for the stages' kernels, not for --upstream")
        return gate_upstream(arguments)
    if arguments.until is None:
        stages = list(all_stages())
    elif arguments.until in stage_folders():
        stages = [stage for stage in all_stages() if stage.number <= arguments.until]
    else:
        raise UsageError(f"there is no stage {arguments.until} to gate until")
    check(arguments.append, stages)
    known = known_splats(arguments)
    seen: list[Judged] = []
    baselines = _baselines(arguments.baseline, [stage.label for stage in stages])
    choice, options = chosen_kernels(arguments), run_options(arguments)
    print(f"KTAP version 1\n1..{len(stages)}", flush=True)
    status, error = Exit.PASS, None
    with Hypervisor(arguments.connect) as hypervisor:
        for position, declared in enumerate(stages, start=1):
            if status is not Exit.PASS or error:
                print(f"ok {position} {declared.label} # SKIP an earlier stage fell")
                continue
            if why := not_there(declared, choice.arch):
                print(f"ok {position} {declared.label} # SKIP {why}", flush=True)
                continue
            stage = configured(declared, choice=choice)
            plans = plan_trials(controls=told_runnable(stage) if arguments.controls else ())
            try:
                record, _verdict, _folder = execute_run(stage, plans, choice, options, hypervisor)
            except StagesError as raised:
                error = raised
                print(ktap.not_run(position, stage, error), end="", flush=True)
                continue
            judged = judge_with(record, stage, known)
            verdict = judged.verdict
            seen.append(judged)
            for text in judged.told:
                print(f"# {ktap.one_line(f'{stage.label}: {text}')}")
            worse = worsened(baselines.get(stage.label), verdict)
            print(
                ktap.stage_result(position, stage, record, verdict, worse=worse), end="", flush=True
            )
            status = Exit.FAIL if worse and verdict.exit is Exit.PASS else verdict.exit
    if error:
        raise error
    return status if splats_in_date(known, seen) or status is not Exit.PASS else Exit.FAIL


def splats_in_date(known: Sequence[KnownSplat], seen: Sequence[Judged]) -> bool:
    """Whether no entry has expired; says which have, and which matched nothing.

    An entry past its date is a failure even where it matches nothing: nobody looks at it else.
    """
    for text in unmatched(known, seen):
        print(f"# {ktap.one_line(f'splats: {text}')}")
    expired = dict.fromkeys(entry for judged in seen for entry in judged.expired)
    for entry in expired:
        print(f"# {ktap.one_line(f'splats: EXPIRED, the gate fails: {entry}')}")
    return not expired


def _baselines(names: Sequence[str], labels: Sequence[str]) -> dict[str, Verdict]:
    """The verdicts to hold the stages against. Raises UsageError for one that cannot be used."""
    found: dict[str, Verdict] = {}
    for name in names:
        with opened(name) as stored:
            if stored.stage.label not in labels:
                raise UsageError(
                    f"baseline {name} is of stage {stored.run.stage}, which is not run"
                )
            found[stored.stage.label] = stored.verdict
    return found


def gate_upstream(arguments: argparse.Namespace) -> int:
    """The kernel's own live update tests; a skip or a missing option is never a pass."""
    if arguments.until is not None or arguments.baseline or arguments.controls:
        raise UsageError("gate --upstream runs no stage: no --until, --baseline or --controls")
    choice = chosen_kernels(arguments)
    if choice.prebuilt:
        raise UsageError("gate --upstream builds kernels and tests from one tree: no --image")
    if choice.arch is not DEFAULT:
        raise UsageError(f"gate --upstream is there for {DEFAULT.title} only")
    statuses: set[str] = set()
    with (
        Hypervisor(arguments.connect) as hypervisor,
        run_folder("upstream", hypervisor) as folder,
    ):
        suites = run_suites(choice, hypervisor, probe(wanted=arguments.accel), folder)
        print(f"KTAP version 1\n1..{len(SUITES)}", flush=True)
        for position, (suite, found) in enumerate(suites, start=1):
            statuses |= {"SKIP"} if isinstance(found, StagesError) else {r.status for r in found}
            print(suite_result(position, suite, found), end="", flush=True)
    print(f"Consoles: {final_name(folder)}", file=sys.stderr)
    ranked: tuple[RunStatus, ...] = ("CRASHED", "TIMEOUT", "FAIL", "SKIP", "PASS")
    return EXIT_OF[next(status for status in ranked if status in statuses)]

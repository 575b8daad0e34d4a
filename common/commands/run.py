# SPDX-License-Identifier: GPL-2.0-only
"""Verbs that run machines: run, demo, gate."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from common import ktap
from common.accel import probe
from common.compare import worsened
from common.errors import Exit, StagesError, UsageError
from common.hypervisor import Hypervisor
from common.kernels import control_kernels, kernel_pair
from common.lane import in_lane
from common.narrator import Narrator
from common.record import Run
from common.report_text import controls_table, report_text
from common.runner import Bench, Plan, check_size, new_run_folder, plan_trials, publish, run_stage
from common.stage import Stage, load_stage, stage_folders
from common.stored_run import opened
from common.verdict import Verdict, judge


def run(arguments: argparse.Namespace) -> int:
    """One stage: main run (or repeats) and controls, then the report on stdout."""
    stage = in_lane(load_stage(arguments.stage), arguments.lane)
    if arguments.control:
        plans = [Plan(f"control-{name}", stage.control(name)) for name in arguments.control]
    else:
        controls = () if arguments.no_controls else stage.controls
        plans = list(plan_trials(repeat=arguments.repeat, controls=controls))
    with Hypervisor(arguments.connect) as hypervisor:
        record, verdict, folder = _run_one(stage, plans, arguments, hypervisor)
    sys.stdout.write(report_text(record, verdict, stage))
    print(f"\nRun folder: {folder}", file=sys.stderr)
    return verdict.exit


def demo(arguments: argparse.Namespace) -> int:
    """Every stage with its controls, narrated; a table at the end; the reports are stored."""
    verdicts: list[tuple[Stage, Verdict, Run]] = []
    with Hypervisor(arguments.connect) as hypervisor:
        for number in stage_folders():
            stage = load_stage(number)
            print(f"\nStage {number}: {stage.title}", file=sys.stderr)
            if stage.in_work:
                print(f"left out, in work: {stage.in_work}", file=sys.stderr)
                continue
            plans = plan_trials(controls=stage.controls)
            record, verdict, folder = _run_one(stage, plans, arguments, hypervisor)
            verdicts.append((stage, verdict, record))
            _show_stage(stage, verdict)
            print(f"\nreport: ./kexec-stages report {folder.name}")
    print("\n" + _summary(verdicts))
    return max((verdict.exit for _, verdict, _ in verdicts), default=Exit.SKIP)


def gate(arguments: argparse.Namespace) -> int:
    """Stages in order up to --until, stopping at the first that falls; KTAP on stdout."""
    if arguments.until is None:
        numbers = [n for n in stage_folders() if not load_stage(n).in_work]
    elif arguments.until in stage_folders():
        numbers = [n for n in stage_folders() if n <= arguments.until]
    else:
        raise UsageError(f"there is no stage {arguments.until} to gate until")
    baselines = _baselines(arguments.baseline, numbers)
    print(f"KTAP version 1\n1..{len(numbers)}", flush=True)
    status, error = Exit.PASS, None
    with Hypervisor(arguments.connect) as hypervisor:
        for position, number in enumerate(numbers, start=1):
            stage = load_stage(number)
            if status is not Exit.PASS or error:
                print(f"ok {position} {stage.folder.name} # SKIP an earlier stage fell")
                continue
            plans = plan_trials(controls=stage.controls if arguments.controls else ())
            try:
                record, verdict, _folder = _run_one(stage, plans, arguments, hypervisor)
            except StagesError as raised:
                error = raised
                print(ktap.not_run(position, stage, error), end="", flush=True)
                continue
            worse = worsened(baselines.get(number), verdict)
            print(
                ktap.stage_result(position, stage, record, verdict, worse=worse), end="", flush=True
            )
            status = Exit.FAIL if worse and verdict.exit is Exit.PASS else verdict.exit
    if error:
        raise error
    return status


def _baselines(names: Sequence[str], numbers: Sequence[int]) -> dict[int, Verdict]:
    """The verdicts to hold the stages against. Raises UsageError for one that cannot be used."""
    found: dict[int, Verdict] = {}
    for name in names:
        with opened(name) as stored:
            if stored.run.stage not in numbers:
                raise UsageError(
                    f"baseline {name} is of stage {stored.run.stage}, which is not run"
                )
            found[stored.run.stage] = stored.verdict
    return found


def _run_one(
    stage: Stage, plans: Sequence[Plan], arguments: argparse.Namespace, hypervisor: Hypervisor
) -> tuple[Run, Verdict, Path]:
    options = {
        option.parameter: _chosen(arguments, option.parameter, option.default)
        for option in stage.options
    }
    check_size(stage, options)
    outgoing, incoming = kernel_pair(stage, arguments)
    controls = [plan.control for plan in plans if plan.control]
    narrator = Narrator(stage)
    folder = new_run_folder(stage, hypervisor)
    bench = Bench(
        stage=stage,
        outgoing=outgoing,
        incoming=incoming,
        accelerator=probe(wanted=arguments.accel),
        hypervisor=hypervisor,
        options=options,
        folder=folder,
        narrate=narrator.line,
        control_kernels=control_kernels(stage, controls, arguments),
    )
    record = run_stage(bench, plans, before=narrator.begin, after=narrator.end)
    return record, judge(record, stage), publish(folder)


def _chosen(arguments: argparse.Namespace, name: str, default: int) -> int:
    value = getattr(arguments, name)
    return default if value is None else int(value)


def _show_stage(stage: Stage, verdict: Verdict) -> None:
    """Claim by claim: what each check saw, and which controls break it."""
    answers = {a.check: a.outcome for trial in verdict.trials for a in trial.answers}
    for number, claim in enumerate(stage.claims, start=1):
        rows = [
            [
                "ok" if answers[check.name].status == "PASS" else "NOT OK",
                check.name,
                answers[check.name].seen,
                ", ".join(c.name for c in stage.controls if check.name in c.breaks),
            ]
            for check in claim.checks
        ]
        headers = ["", "check", "seen", "controls that must break it"]
        print(f"\n{number}. {claim.text}")
        print(tabulate(rows, headers=headers, maxcolwidths=[None, None, 40, 30]))
    print("\nControls: each must fail, for its own reason and in nothing else")
    print(controls_table(verdict.controls, width=100))
    print(f"\nstage {stage.number}: {verdict.status}: {verdict.why}")


def _summary(verdicts: Sequence[tuple[Stage, Verdict, Run]]) -> str:
    rows = []
    for stage, verdict, record in verdicts:
        main = next((t for t in record.trials if t.setting.control is None), None)
        headline = stage.headline(main) if main and verdict.status == "PASS" else {}
        good = sum(control.good for control in verdict.controls)
        rows.append(
            {
                "stage": f"{stage.number} {stage.name}",
                "verdict": verdict.status,
                "claims": len(stage.claims),
                "checks": len(stage.checks),
                "controls": f"{good}/{len(verdict.controls)} failed",
                **headline,
            }
        )
    return tabulate(rows, headers="keys")

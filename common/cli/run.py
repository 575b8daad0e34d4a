# SPDX-License-Identifier: GPL-2.0-only
"""Verbs that run machines: run, demo, gate."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence

from tabulate import tabulate

from common.cli.upstream import gate_upstream
from common.errors import CannotRunHere, Exit, StagesError, UsageError
from common.judge.stored_run import opened
from common.judge.verdict import Verdict
from common.machine.hypervisor import Hypervisor
from common.record.evidence import Run
from common.report import ktap
from common.report.comparison import worsened
from common.report.host import attempts, disturbed_attempts
from common.report.text import controls_table, report_text
from common.run.guest_image import chosen_guest
from common.run.one_run import one_run
from common.run.trial import Plan, plan_trials
from common.stage.append import check
from common.stage.configured import as_run, left_out
from common.stage.declaration import Control, Stage, all_stages, load_stage, stage_folders
from common.stage.kernel_choice import chosen
from common.stage.layouts import layouts_asked


def run(arguments: argparse.Namespace) -> int:
    """One stage: main run (or repeats) and controls, then the report on stdout."""
    choice, guest = chosen(arguments), chosen_guest(arguments)
    stage = as_run(
        load_stage(arguments.stage, arguments.workload),
        lane=arguments.lane,
        choice=choice,
        chain=arguments.chain,
        own_guest=guest is not None,
    )
    check(arguments.append, [stage])
    if arguments.control:
        plans = [
            Plan(f"control-{name}", _possible(stage, name))
            for name in dict.fromkeys(arguments.control)
        ]
    else:
        controls = () if arguments.no_controls else told_possible(stage)
        times = layouts_asked(arguments.layouts, stage, arguments.append) or arguments.repeat
        plans = list(plan_trials(repeat=times, controls=controls))
    with Hypervisor(arguments.connect) as hypervisor:
        record, verdict, folder = one_run(stage, plans, choice, arguments, hypervisor, guest)
    sys.stdout.write(report_text(record, verdict, stage))
    print(f"\nRun folder: {folder}", file=sys.stderr)
    return verdict.exit


def _possible(stage: Stage, name: str) -> Control:
    """The control of that name. Raises UsageError where its kernels cannot be built."""
    if name in stage.left_out:
        raise UsageError(
            f"control {name} needs kernels built from our series, not from what was given"
        )
    return stage.control(name)


def told_possible(stage: Stage) -> tuple[Control, ...]:
    """The controls that can be run; says which cannot."""
    if stage.left_out:
        print(f"controls left out: {left_out(stage)}", file=sys.stderr)
    return stage.possible_controls


def demo(arguments: argparse.Namespace) -> int:
    """Every stage with its controls, narrated; a table at the end; the reports are stored."""
    verdicts: list[tuple[Stage, Verdict, Run]] = []
    skipped: list[str] = []
    choice = chosen(arguments)
    check(arguments.append, all_stages())
    with Hypervisor(arguments.connect) as hypervisor:
        for declared in all_stages():
            stage = as_run(declared, choice=choice)
            print(f"\nStage {stage.number}: {stage.title}", file=sys.stderr)
            plans = plan_trials(controls=[c for c in told_possible(stage) if stage.shows(c)])
            try:
                record, verdict, folder = one_run(stage, plans, choice, arguments, hypervisor)
            except CannotRunHere as error:
                print(f"not run here: {error}", file=sys.stderr)
                skipped.append(f"{stage.label}: SKIP, {error}")
                continue
            verdicts.append((stage, verdict, record))
            _show_stage(stage, verdict)
            print(f"\nreport: ./kexec-stages report {folder.name}")
    print("\n" + _summary(verdicts))
    for text in skipped:
        print(textwrap.fill(text, 100, subsequent_indent="   "))
    for stage, verdict, _ in verdicts:
        for text in attempts(verdict):
            print(textwrap.fill(f"{stage.label}: {text}", 100, subsequent_indent="   "))
    print(_not_claimed([stage for stage, _, _ in verdicts]))
    return max((verdict.exit for _, verdict, _ in verdicts), default=Exit.SKIP)


def gate(arguments: argparse.Namespace) -> int:
    """Stages in order up to --until, stopping at the first that falls; KTAP on stdout."""
    if arguments.upstream:
        if arguments.append:
            raise UsageError("--append is for the stages' kernels, not for --upstream")
        return gate_upstream(arguments)
    if arguments.until is None:
        stages = list(all_stages())
    elif arguments.until in stage_folders():
        stages = [stage for stage in all_stages() if stage.number <= arguments.until]
    else:
        raise UsageError(f"there is no stage {arguments.until} to gate until")
    check(arguments.append, stages)
    baselines = _baselines(arguments.baseline, [stage.label for stage in stages])
    choice = chosen(arguments)
    print(f"KTAP version 1\n1..{len(stages)}", flush=True)
    status, error = Exit.PASS, None
    with Hypervisor(arguments.connect) as hypervisor:
        for position, declared in enumerate(stages, start=1):
            stage = as_run(declared, choice=choice)
            if status is not Exit.PASS or error:
                print(f"ok {position} {stage.label} # SKIP an earlier stage fell")
                continue
            plans = plan_trials(controls=told_possible(stage) if arguments.controls else ())
            try:
                record, verdict, _folder = one_run(stage, plans, choice, arguments, hypervisor)
            except StagesError as raised:
                error = raised
                print(ktap.not_run(position, stage, error), end="", flush=True)
                continue
            worse = worsened(baselines.get(stage.label), verdict)
            print(
                ktap.stage_result(position, stage, record, verdict, worse=worse), end="", flush=True
            )
            status = Exit.FAIL if worse and verdict.exit is Exit.PASS else verdict.exit
    if error:
        raise error
    return status


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


def _show_stage(stage: Stage, verdict: Verdict) -> None:
    """Claim by claim: what each check saw, and which controls break it."""
    answers = {a.check: a.outcome for trial in verdict.trials for a in trial.answers}
    for number, claim in enumerate(stage.claims, start=1):
        rows = [
            [
                "ok" if answers[check.name].status == "PASS" else "NOT OK",
                check.name,
                answers[check.name].seen,
                ", ".join(c.name for c in stage.possible_controls if check.name in c.breaks),
            ]
            for check in claim.checks
        ]
        headers = ["", "check", "seen", "controls that must break it"]
        print(f"\n{number}. {claim.text}")
        print(tabulate(rows, headers=headers, maxcolwidths=[None, None, 40, 30]))
    print("\nControls: each must fail, for its own reason and in nothing else")
    print(controls_table(verdict.controls, width=100))
    print(f"\nstage {stage.number}: {verdict.status}: {verdict.why}")


def _not_claimed(stages: Sequence[Stage]) -> str:
    """What no stage claims, below the table of what they do."""
    lines = ["\nNot claimed:"]
    for stage in stages:
        for text in stage.not_claimed:
            lines.append(
                textwrap.fill(
                    f"{stage.number}  {text}", 100, subsequent_indent="   ", break_on_hyphens=False
                )
            )
    return "\n".join(lines)


def _summary(verdicts: Sequence[tuple[Stage, Verdict, Run]]) -> str:
    rows = []
    for stage, verdict, record in verdicts:
        main = record.trial(verdict.trials[0].trial) if verdict.trials else None
        headline = stage.headline(main) if main and verdict.status == "PASS" else {}
        good = sum(control.good for control in verdict.controls)
        rows.append(
            {
                "stage": f"{stage.number} {stage.name}",
                "verdict": verdict.status,
                "claims": len(stage.claims),
                "checks": len(stage.checks),
                "controls": f"{good}/{len(verdict.controls)} failed",
                "disturbed": disturbed_attempts(verdict),
                **headline,
            }
        )
    return tabulate(rows, headers="keys")

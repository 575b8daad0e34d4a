# SPDX-License-Identifier: GPL-2.0-only
"""Verbs that run machines: run, demo, gate."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence

from tabulate import tabulate

from common.checks.model import Control
from common.cli.kernel_options import chosen_kernels
from common.cli.options import known_splats, run_options
from common.errors import CannotRunHere, Exit, UsageError
from common.judge.known_splats import judge_with, unmatched
from common.judge.verdict import Verdict
from common.machine.hypervisor import Hypervisor
from common.record.evidence import Run
from common.report.host import attempts, disturbed_attempts
from common.report.text import controls_table, report_text
from common.run.setup import TrialPlan, plan_trials
from common.run.stage_run import StageRun, begin_run, execute_run
from common.run.workers import Work, workers
from common.stage.append import check
from common.stage.configured import configured, skipped_in_words
from common.stage.declaration import WORKLOADS, Stage
from common.stage.kernel_choice import KernelChoice
from common.stage.layouts import layouts_asked
from common.stage.loading import all_stages, load_stage
from common.stage.on_architecture import not_there
from common.text import printable


def run(arguments: argparse.Namespace) -> int:
    """One stage: main run (or repeats) and controls, then the report on stdout."""
    choice, options = chosen_kernels(arguments), run_options(arguments)
    stage = configured(
        load_stage(arguments.stage, arguments.workload),
        lane=arguments.lane,
        choice=choice,
        chain=arguments.chain,
        own_guest=options.guest_image is not None,
    )
    check(arguments.append, [stage])
    known = known_splats(arguments)
    if arguments.control:
        plans = [
            TrialPlan(f"control-{name}", _possible(stage, name))
            for name in dict.fromkeys(arguments.control)
        ]
    else:
        controls = () if arguments.no_controls else told_runnable(stage)
        times = layouts_asked(arguments.layouts, stage, arguments.append) or arguments.repeat
        plans = list(plan_trials(repeat=times, controls=controls))
    work = Work(stages=[stage], choice=choice, options=options, connect=arguments.connect)
    with (
        workers(arguments.jobs, work) as beside,
        Hypervisor(arguments.connect) as hypervisor,
    ):
        record, _verdict, folder = execute_run(
            stage, plans, choice, options, hypervisor, beside=beside
        )
    judged = judge_with(record, stage, known)
    sys.stdout.write(report_text(record, judged.verdict, stage))
    for text in (*judged.told, *unmatched(known, [judged])):
        print(printable(f"splats: {text}"), file=sys.stderr)
    print(f"\nRun folder: {folder}", file=sys.stderr)
    return judged.verdict.exit


def _possible(stage: Stage, name: str) -> Control:
    """The control of that name. Raises UsageError where its kernels cannot be built."""
    if name in stage.config.skipped_controls:
        raise UsageError(
            f"control {name} needs kernels built from our series, not from what was given"
        )
    return stage.control(name)


def told_runnable(stage: Stage) -> tuple[Control, ...]:
    """The controls that can be run; says which cannot."""
    if stage.config.skipped_controls:
        print(f"controls skipped: {skipped_in_words(stage)}", file=sys.stderr)
    return stage.runnable_controls


def demo(arguments: argparse.Namespace) -> int:
    """Every stage with its controls, narrated; a table at the end; the reports are stored.

    The main runs come first, QEMU's last of them: they show what there is to show, and the kernels
    of the controls take longer than all of them.
    """
    choice, options = chosen_kernels(arguments), run_options(arguments)
    stages, skipped = _there(choice)
    check(arguments.append, stages)
    verdicts: dict[str, tuple[Stage, Verdict, Run]] = {}
    work = Work(stages=stages, choice=choice, options=options, connect=arguments.connect)
    with (
        workers(arguments.jobs, work) as beside,
        Hypervisor(arguments.connect) as hypervisor,
    ):
        runs: dict[str, StageRun] = {}
        for stage in sorted(stages, key=lambda stage: stage.workload != WORKLOADS[0]):
            print(f"\nStage {stage.number}: {stage.title}", file=sys.stderr)
            plans = plan_trials(controls=[c for c in told_runnable(stage) if stage.shows(c)])
            try:
                run = begin_run(stage, plans, choice, options, hypervisor, beside=beside)
            except CannotRunHere as error:
                print(f"not run here: {error}", file=sys.stderr)
                skipped.append(f"{stage.label}: SKIP, {error}")
                continue
            run.mains()
            status = run.verdict().status
            print(f"{stage.label}: main run {status}; its controls follow", flush=True)
            runs[stage.label] = run
        for label, run in runs.items():
            print(f"\nControls of {label}", file=sys.stderr)
            run.build_controls(choice)
            record, verdict, folder = run.finish()
            verdicts[label] = run.stage, verdict, record
            _show_stage(run.stage, verdict)
            print(f"\nreport: ./kexec-stages report {folder.name}", flush=True)
    shown = [verdicts[stage.label] for stage in stages if stage.label in verdicts]
    print("\n" + _summary(shown))
    for text in skipped:
        print(textwrap.fill(text, 100, subsequent_indent="   "))
    for stage, verdict, _ in shown:
        for text in attempts(verdict):
            print(textwrap.fill(f"{stage.label}: {text}", 100, subsequent_indent="   "))
    print(_not_claimed([stage for stage, _, _ in shown]))
    return max((verdict.exit for _, verdict, _ in shown), default=Exit.SKIP)


def _there(choice: KernelChoice) -> tuple[list[Stage], list[str]]:
    """The stages that the architecture has; of the others why it has them not."""
    stages, skipped = [], []
    for declared in all_stages():
        if why := not_there(declared, choice.arch):
            skipped.append(f"{declared.label}: SKIP, {why}")
        else:
            stages.append(configured(declared, choice=choice))
    return stages, skipped


_WORD = {"PASS": "ok", "XFAIL": "xfail", "XPASS": "XPASS", "N/A": "n/a"}


def _show_stage(stage: Stage, verdict: Verdict) -> None:
    """Claim by claim: what each check saw, and which controls break it."""
    answers = {a.check: a.outcome for trial in verdict.trials for a in trial.answers}
    for number, claim in enumerate(stage.claims, start=1):
        rows = [
            [
                _WORD.get(answers[check.name].status, "NOT OK"),
                check.name,
                answers[check.name].seen,
                ", ".join(c.name for c in stage.runnable_controls if check.name in c.breaks),
            ]
            for check in claim.checks
        ]
        headers = ["", "check", "seen", "controls that must break it"]
        print(f"\n{number}. {claim.text}")
        print(tabulate(rows, headers=headers, maxcolwidths=[None, None, 40, 30]))
    print("\nControls: each must fail, for the intended reason, and only in the checks it targets")
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

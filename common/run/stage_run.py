# SPDX-License-Identifier: GPL-2.0-only
"""A run: its trials one after the other, disturbed ones again, sealed in a folder."""

from __future__ import annotations

import datetime
import secrets
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from common import __version__
from common.host.facts import checkout_commit
from common.host.processes.load import busy
from common.judge.verdict import Verdict, disturbed, judge, judge_trial
from common.machine.hypervisor import Hypervisor
from common.paths import runs_root
from common.record.evidence import Made, Run, Trial
from common.record.seal import seal
from common.record.setting import ATTEMPTS
from common.record.sources import digests
from common.record.trial_files import MADE, RECORD
from common.run.options import RunOptions
from common.run.progress import Progress
from common.run.setup import RunSetup, TrialPlan, setup_of
from common.run.trial import run_trial
from common.stage.declaration import Stage
from common.stage.kernel_choice import KernelChoice


def execute_run(
    stage: Stage,
    plans: Sequence[TrialPlan],
    choice: KernelChoice,
    options: RunOptions,
    hypervisor: Hypervisor,
) -> tuple[Run, Verdict, Path]:
    """The trials of `plans` on those kernels; `stage` is one `configured`."""
    controls = [plan.control for plan in plans if plan.control]
    setup = setup_of(stage, controls, choice, options, hypervisor)
    progress = Progress(stage)
    folder = new_run_folder(stage.label, hypervisor)
    setup = replace(setup, folder=folder, on_progress=progress.line)
    with busy(setup.load, hypervisor.cleanup):
        record = run_stage(setup, plans, before=progress.begin, after=progress.end)
    return record, judge(record, stage), publish(folder)


def run_stage(
    setup: RunSetup,
    plans: Sequence[TrialPlan],
    *,
    before: Callable[[TrialPlan], None],
    after: Callable[[Trial], None],
) -> Run:
    """All trials of `plans`, one after the other, as a sealed run in `setup.folder`.

    A disturbed trial is run again, up to `ATTEMPTS` times in all. No controls after a main run
    that failed for the named cause that was expected.
    """
    trials: list[Trial] = []
    made = _made(setup.stage, plans)
    (setup.folder / MADE).write_text(made.text())
    setup = replace(setup, nonce=made.nonce)
    for kernel, name in (
        (setup.kernels.outgoing, "outgoing"),
        (setup.kernels.incoming, "incoming"),
    ):
        if kernel.config:
            shutil.copyfile(kernel.config, setup.folder / f"{name}.config")
    for plan in plans:
        # What a control breaks cannot be told apart where the main run is broken already.
        if plan.control and any(_fails_as_expected(trial, setup.stage) for trial in trials):
            break
        trials += run_attempts(setup, plan, before=before, after=after)
    run = Run(**dict(made), trials=tuple(trials))
    (setup.folder / RECORD).write_text(run.text())
    seal(setup.folder)
    return run


def run_attempts(
    setup: RunSetup,
    plan: TrialPlan,
    *,
    before: Callable[[TrialPlan], None] = lambda _plan: None,
    after: Callable[[Trial], None] = lambda _trial: None,
) -> list[Trial]:
    """A trial, and as long as it is disturbed another attempt at it, up to `ATTEMPTS` in all."""
    trials: list[Trial] = []
    for attempt in range(1, ATTEMPTS + 1):
        before(plan)
        trials.append(run_trial(setup, replace(plan, attempt=attempt)))
        after(trials[-1])
        if not disturbed(trials[-1], setup.stage):
            break
    return trials


def _made(stage: Stage, plans: Sequence[TrialPlan]) -> Made:
    """What makes a run that begins now."""
    return Made(
        id=secrets.token_hex(8),
        stage=stage.number,
        tool=f"kexec-stages {__version__}",
        commit=checkout_commit(),
        sources=digests(),
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=tuple(sys.argv[1:]),
        planned=tuple(plan.name for plan in plans),
    )


def _fails_as_expected(trial: Trial, stage: Stage) -> bool:
    return trial.setting.control is None and judge_trial(trial, stage).status == "XFAIL"


def new_run_folder(what: str, hypervisor: Hypervisor) -> Path:
    """A fresh folder for a run, named .part until `publish`; it goes if this process dies."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"{stamp}-{what}-{secrets.token_hex(2)}.part"
    folder = runs_root() / name
    folder.mkdir(parents=True)
    hypervisor.cleanup.remove_folder(folder)
    return folder


def publish(folder: Path) -> Path:
    """The finished run under its final name, and `latest` pointing to it."""
    final = folder.with_suffix("")
    folder.rename(final)
    latest = final.parent / "latest"
    part = final.parent / f".latest.{secrets.token_hex(4)}"
    part.symlink_to(final.name)
    part.replace(latest)
    return final

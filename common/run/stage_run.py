# SPDX-License-Identifier: GPL-2.0-only
"""A run: its trials one after the other, disturbed ones again, sealed in a folder."""

from __future__ import annotations

import datetime
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from common import __version__
from common.checks.model import Control
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
from common.run.kernels import with_controls
from common.run.options import RunOptions
from common.run.progress import Progress
from common.run.setup import RunSetup, TrialPlan, setup_of
from common.run.trial import run_trial
from common.run.workers import Workers
from common.stage.declaration import Stage
from common.stage.kernel_choice import KernelChoice


def execute_run(
    stage: Stage,
    plans: Sequence[TrialPlan],
    choice: KernelChoice,
    options: RunOptions,
    hypervisor: Hypervisor,
    *,
    beside: Workers | None = None,
) -> tuple[Run, Verdict, Path]:
    """Run the trials of `plans` on those kernels; `stage` is one `configured`.

    Controls are run at once by the workers `beside`, where there are any.

    Returns (the record, its verdict, the run's published folder).
    """
    controls = [plan.control for plan in plans if plan.control]
    run = begin_run(stage, plans, choice, options, hypervisor, controls=controls, beside=beside)
    run.mains()
    return run.finish()


def begin_run(
    stage: Stage,
    plans: Sequence[TrialPlan],
    choice: KernelChoice,
    options: RunOptions,
    hypervisor: Hypervisor,
    *,
    controls: Sequence[Control] = (),
    beside: Workers | None = None,
) -> StageRun:
    """A run in a folder of its own, with the kernels of its main trials and of those controls."""
    setup = setup_of(stage, controls, choice, options, hypervisor)
    progress = Progress(stage)
    folder = new_run_folder(stage.label, hypervisor)
    setup = replace(setup, folder=folder, on_progress=progress.line)
    return StageRun(setup, plans, beside=beside, before=progress.begin, after=progress.end)


class StageRun:
    """A run under way: main trials, then controls, for which kernels may be built in between.

    A disturbed trial is run again, up to `ATTEMPTS` times in all. Main trials are run alone, and so
    is each further attempt: workers `beside` each other run the first ones of controls.
    """

    def __init__(
        self,
        setup: RunSetup,
        plans: Sequence[TrialPlan],
        *,
        beside: Workers | None = None,
        before: Callable[[TrialPlan], None] = lambda _plan: None,
        after: Callable[[Trial], None] = lambda _trial: None,
    ) -> None:
        self._beside = beside
        self._made = _made(setup.stage, plans)
        self._setup = replace(setup, nonce=self._made.nonce)
        self._plans = plans
        self._before, self._after = before, after
        self._trials: list[Trial] = []
        (setup.folder / MADE).write_text(self._made.text())
        kernels = setup.kernels
        for kernel, name in ((kernels.outgoing, "outgoing"), (kernels.incoming, "incoming")):
            if kernel.config:
                shutil.copyfile(kernel.config, setup.folder / f"{name}.config")

    @property
    def stage(self) -> Stage:
        """The stage as it is run."""
        return self._setup.stage

    def build_controls(self, choice: KernelChoice) -> None:
        """Build the kernels that controls of this run have of their own."""
        controls = [plan.control for plan in self._plans if plan.control]
        kernels = with_controls(self._setup.kernels, self.stage, choice, controls)
        self._setup = replace(self._setup, kernels=kernels)

    def mains(self) -> None:
        """Run the main trials."""
        self._run([plan for plan in self._plans if not plan.control])

    def verdict(self) -> Verdict:
        """What the trials show that were run until now."""
        return judge(self._record(), self.stage)

    def controls(self) -> Run:
        """Run the controls, and seal the run.

        None after a main run that failed for the named cause that was expected: what a control
        breaks cannot be told apart where the main run is broken already.
        """
        if not any(_fails_as_expected(trial, self.stage) for trial in self._trials):
            controls = [plan for plan in self._plans if plan.control]
            if self._beside and len(controls) > 1:
                self._run(self._run_beside(self._beside, controls), first=2)
            else:
                self._run(controls)
        record = self._record()
        (self._setup.folder / RECORD).write_text(record.text())
        seal(self._setup.folder)
        return record

    def finish(self) -> tuple[Run, Verdict, Path]:
        """Run the controls and seal the run: (the record, its verdict, the published folder)."""
        return self.controls(), self.verdict(), publish(self._setup.folder)

    def _run(self, plans: Sequence[TrialPlan], *, first: int = 1) -> None:
        with busy(self._setup.load, self._setup.hypervisor.cleanup):
            for plan in plans:
                self._trials += run_attempts(
                    self._setup, plan, first=first, before=self._before, after=self._after
                )

    def _run_beside(self, workers: Workers, plans: Sequence[TrialPlan]) -> list[TrialPlan]:
        """Attempt each once, several at once; returns those that were disturbed."""
        again = []
        with busy(self._setup.load, self._setup.hypervisor.cleanup):
            folder = self._setup.folder
            for trial in workers.attempts(self.stage, self._made, folder, plans):
                self._trials.append(trial)
                self._after(trial)
                if disturbed(trial, self.stage):
                    again.append(trial.setting.plan)
        return [plan for plan in plans if plan.name in again]

    def _record(self) -> Run:
        planned = self._made.planned
        trials = sorted(
            self._trials, key=lambda t: (planned.index(t.setting.plan), t.setting.attempt)
        )
        return Run(**dict(self._made), trials=tuple(trials))


def run_attempts(
    setup: RunSetup,
    plan: TrialPlan,
    *,
    first: int = 1,
    before: Callable[[TrialPlan], None] = lambda _plan: None,
    after: Callable[[Trial], None] = lambda _trial: None,
) -> list[Trial]:
    """A trial, and as long as it is disturbed another attempt at it, up to `ATTEMPTS` in all.

    The `first` of them is the first, unless others were made before.
    """
    trials: list[Trial] = []
    for attempt in range(first, ATTEMPTS + 1):
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


@contextmanager
def run_folder(what: str, hypervisor: Hypervisor) -> Iterator[Path]:
    """A fresh folder of that kind; it has its final name, `final_name`, once the block ends well.

    It stays as it is where the block raises, and goes with this process.
    """
    folder = new_run_folder(what, hypervisor)
    yield folder
    folder.rename(final_name(folder))


def final_name(folder: Path) -> Path:
    """What a run folder is called when it is finished."""
    return folder.with_suffix("")


def publish(folder: Path) -> Path:
    """The finished run under its final name, and `latest` pointing to it."""
    final = folder.rename(final_name(folder))
    latest = final.parent / "latest"
    part = final.parent / f".latest.{secrets.token_hex(4)}"
    part.symlink_to(final.name)
    part.replace(latest)
    return final

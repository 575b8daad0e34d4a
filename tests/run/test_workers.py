# SPDX-License-Identifier: GPL-2.0-only
"""Controls at once: each in a process of its own, disturbed ones again and alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.errors import Exit, HarnessError, StagesError
from common.record.evidence import Made, Trial
from common.run import stage_run
from common.run import workers as module
from common.run.options import RunOptions
from common.run.setup import RunSetup, TrialPlan, plan_trials
from common.run.stage_run import StageRun
from common.run.workers import Work, Workers, jobs_here, workers
from common.stage.configured import configured
from common.stage.kernel_choice import KernelChoice
from common.stage.loading import load_stage

CHOICE, OPTIONS = KernelChoice(), RunOptions()
STAGE = configured(load_stage(1), choice=CHOICE)
CONTROLS = STAGE.controls[:5]
PLANS = plan_trials(controls=CONTROLS)[1:]
MADE = Made(stage=1, tool="t", commit="c", started="s", command=())


def _trial(setup: RunSetup, plan: TrialPlan) -> SimpleNamespace:
    """What a trial would leave, of which these tests ask who made it."""
    setting = SimpleNamespace(
        plan=plan.name,
        name=plan.folder,
        attempt=plan.attempt,
        control=plan.control.name if plan.control else None,
        jobs=setup.jobs,
        nonce=setup.nonce(plan.folder),
    )
    return SimpleNamespace(setting=setting, pid=os.getpid())


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No machines: workers are forked, so what is replaced here is replaced there."""
    setup = RunSetup(
        stage=STAGE,
        kernels=None,  # type: ignore[arg-type]
        accelerator=None,  # type: ignore[arg-type]
        hypervisor=None,  # type: ignore[arg-type]
        options={},
        folder=Path(),
    )
    monkeypatch.setattr(module, "Hypervisor", lambda _uri: nullcontext())
    monkeypatch.setattr(module, "setup_of", lambda *_words: setup)
    monkeypatch.setattr(module, "with_controls", lambda *_words: None)
    monkeypatch.setattr(module, "run_trial", _trial)
    return monkeypatch


def work() -> Work:
    return Work(stages=[STAGE], choice=CHOICE, options=OPTIONS)


def attempts(jobs: int, plans: Sequence[TrialPlan] = PLANS) -> list[Any]:
    with workers(jobs, work()) as found:
        assert found is not None
        assert found.jobs == jobs
        return list(found.attempts(STAGE, MADE, Path(), plans))


@pytest.mark.usefixtures("faked")
@pytest.mark.parametrize("jobs", [2, 3, 8])
def test_each_is_attempted_once_by_another_process(jobs: int) -> None:
    found = attempts(jobs)
    assert sorted(t.setting.plan for t in found) == sorted(plan.name for plan in PLANS)
    assert all(t.setting.nonce == MADE.nonce(t.setting.plan) for t in found)
    assert {t.setting.jobs for t in found} == {jobs}
    assert os.getpid() not in {t.pid for t in found}
    assert len({t.pid for t in found}) <= jobs


def test_they_run_at_once(faked: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each of two waits until the other has begun."""
    begun = [tmp_path / plan.name for plan in PLANS[:2]]

    def wait(setup: RunSetup, plan: TrialPlan) -> SimpleNamespace:
        (tmp_path / plan.name).touch()
        while not all(path.exists() for path in begun):
            pass
        return _trial(setup, plan)

    faked.setattr(module, "run_trial", wait)
    assert len(attempts(2, PLANS[:2])) == 2


def test_one_after_the_other_needs_none() -> None:
    with workers(1, work()) as found:
        assert found is None


def test_a_workers_error_is_ours(faked: pytest.MonkeyPatch) -> None:
    def fail(_setup: RunSetup, _plan: TrialPlan) -> SimpleNamespace:
        error = StagesError("it did not build", details=["first line"])
        error.exit_status = Exit.NO_KERNEL
        raise error

    faked.setattr(module, "run_trial", fail)
    with pytest.raises(StagesError, match="it did not build") as caught:
        attempts(2)
    assert caught.value.exit_status == Exit.NO_KERNEL
    assert caught.value.details == ("first line",)


def test_a_bug_in_a_worker_is_told_with_its_traceback(faked: pytest.MonkeyPatch) -> None:
    def stumble(_setup: RunSetup, plan: TrialPlan) -> None:
        raise KeyError(plan.attempt)

    faked.setattr(module, "run_trial", stumble)
    with pytest.raises(StagesError, match=r"(?s)trial control-.*Traceback.*KeyError: 1"):
        attempts(2)


def test_a_worker_that_is_killed(faked: pytest.MonkeyPatch) -> None:
    faked.setattr(module, "run_trial", lambda *_words: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(HarnessError, match="a process that ran trials has ended"):
        attempts(2)


def test_what_still_runs_ends_with_the_block(faked: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By an interrupt, so that whatever it has opened is closed."""

    def hang(_setup: RunSetup, _plan: TrialPlan) -> SimpleNamespace:
        (tmp_path / str(os.getpid())).touch()
        try:
            signal.pause()
            raise AssertionError("went on")
        finally:
            (tmp_path / f"{os.getpid()}-closed").touch()

    def first_fails(setup: RunSetup, plan: TrialPlan) -> SimpleNamespace:
        if plan.name == PLANS[0].name:
            while not any(tmp_path.iterdir()):
                pass
            raise StagesError("no")
        return hang(setup, plan)

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)  # as the command line does
    try:
        faked.setattr(module, "run_trial", first_fails)
        with pytest.raises(StagesError, match="no"):
            attempts(2, PLANS[:2])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert any(path.name.endswith("-closed") for path in tmp_path.iterdir())


class _Fake(Workers):
    """Attempts each in this process, in the wrong order."""

    def __init__(self) -> None:
        super().__init__({})

    def attempts(self, _stage: Any, _made: Made, _folder: Path, plans: Any) -> Iterator[Trial]:
        setup: Any = SimpleNamespace(jobs=2, nonce=lambda _name: "")
        for plan in reversed(plans):
            yield _trial(setup, plan)  # type: ignore[misc]


def test_a_disturbed_one_is_run_again_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And the record has the trials in the order in which they were planned."""
    disturbed = [PLANS[1].name, f"{PLANS[1].name}-attempt-2", PLANS[3].name]
    kernel = SimpleNamespace(config=None)
    hypervisor = SimpleNamespace(cleanup=None)
    setup = RunSetup(
        stage=STAGE,
        kernels=SimpleNamespace(outgoing=kernel, incoming=kernel),  # type: ignore[arg-type]
        accelerator=None,  # type: ignore[arg-type]
        hypervisor=hypervisor,  # type: ignore[arg-type]
        options={},
        folder=tmp_path,
    )
    seen: list[Any] = []
    monkeypatch.setattr(stage_run, "run_trial", _trial)
    monkeypatch.setattr(stage_run, "disturbed", lambda t, _stage: t.setting.name in disturbed)
    monkeypatch.setattr(stage_run, "_fails_as_expected", lambda *_words: False)
    monkeypatch.setattr(stage_run, "Run", lambda **fields: SimpleNamespace(**fields, text=str))
    monkeypatch.setattr(stage_run, "seal", lambda _folder: None)
    plans = (TrialPlan("main"), *PLANS)
    run = StageRun(setup, plans, beside=_Fake(), after=seen.append)
    run.mains()
    trials: Any = run.controls().trials
    told = [(t.setting.name, t.setting.jobs) for t in trials]
    assert told == [
        ("main", 1),
        (PLANS[0].name, 2),
        (PLANS[1].name, 2),
        (f"{PLANS[1].name}-attempt-2", 1),
        (f"{PLANS[1].name}-attempt-3", 1),
        (PLANS[2].name, 2),
        (PLANS[3].name, 2),
        (f"{PLANS[3].name}-attempt-2", 1),
        (PLANS[4].name, 2),
    ]
    assert len(seen) == len(trials)


@pytest.mark.parametrize(
    ("cpus", "mib", "jobs"), [(2, 64_000, 1), (16, 64_000, 8), (1, 64_000, 1), (8, 600, 1)]
)
def test_as_many_as_the_host_carries(
    monkeypatch: pytest.MonkeyPatch, cpus: int, mib: int, jobs: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cpus)))
    monkeypatch.setattr(module, "available_memory_mib", lambda: mib)
    assert jobs_here([STAGE], {}) == jobs

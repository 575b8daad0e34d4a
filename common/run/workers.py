# SPDX-License-Identifier: GPL-2.0-only
"""Processes that run controls next to each other.

A process has one connection to libvirt's embedded driver, and one folder for it, in all its life.
So each worker has its own, and is forked before this process opens one: what a stage consists of
are functions, which no other way would carry over.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from common.errors import HarnessError, StagesError
from common.host.facts import available_memory_mib
from common.host.processes.precedence import prefer_this
from common.machine.hypervisor import Hypervisor
from common.record.evidence import Made, Trial
from common.run.kernels import with_controls
from common.run.options import RunOptions
from common.run.setup import RunSetup, TrialPlan, options_of, setup_of
from common.run.trial import run_trial
from common.stage.declaration import Stage
from common.stage.kernel_choice import KernelChoice

_HOST_MIB = 512
"""Of memory, for the host itself."""
_CPUS_EACH = 2
"""Of the host, for a machine: what is watched in time must not wait for another machine."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, kw_only=True)
class Work:
    """What workers are to know of the runs whose controls they run."""

    stages: Sequence[Stage]
    choice: KernelChoice
    options: RunOptions
    connect: str | None = None


@dataclass(frozen=True)
class _Task:
    """One attempt at a control: of the stage of that label, in the folder of its run."""

    stage: str
    made: Made
    folder: Path
    plan: str
    control: str


@dataclass(frozen=True)
class _Failed:
    """A task that ended without a trial, and why."""

    said: str
    details: tuple[str, ...] = ()
    exit_status: int = StagesError.exit_status

    @staticmethod
    def of(error: StagesError) -> _Failed:
        """It, in a form that is sent to another process."""
        return _Failed(str(error), error.details, error.exit_status)

    def error(self) -> StagesError:
        """The same as an error of this process."""
        error = StagesError(self.said, details=self.details)
        error.exit_status = self.exit_status
        return error


class Workers:
    """Worker processes; see `workers`."""

    def __init__(self, ends: Mapping[Connection, BaseProcess]) -> None:
        self._ends = ends

    @property
    def jobs(self) -> int:
        """How many there are."""
        return len(self._ends)

    def attempts(
        self, stage: Stage, made: Made, folder: Path, plans: Sequence[TrialPlan]
    ) -> Iterator[Trial]:
        """One attempt at each of those controls, as they end.

        Raises what a worker has raised; the others are not waited for.
        """
        tasks = [
            _Task(stage.label, made, folder, plan.name, plan.control.name)
            for plan in plans
            if plan.control
        ]
        free = list(self._ends)
        while tasks or len(free) < self.jobs:
            while tasks and free:
                free.pop().send(tasks.pop(0))
            for end in wait([end for end in self._ends if end not in free]):
                assert isinstance(end, Connection)
                try:
                    found = end.recv()
                except EOFError:
                    raise HarnessError("a process that ran trials has ended") from None
                free.append(end)
                if isinstance(found, _Failed):
                    raise found.error()
                yield found


@contextmanager
def workers(jobs: int | None, work: Work) -> Iterator[Workers | None]:
    """So many workers, or None where one trial after the other is to be run.

    By default as many as this host can carry. To be entered before a Hypervisor. What they do ends
    with the block.
    """
    jobs = jobs or jobs_here(work.stages, work.options.numbers)
    if jobs < 2:
        yield None
        return
    context = multiprocessing.get_context("fork")
    ends: dict[Connection, BaseProcess] = {}
    try:
        for _ in range(jobs):
            ours, theirs = context.Pipe()
            worker = context.Process(target=_serve, args=(theirs, work, jobs, os.getpid()))
            # What a handler raises while Python puts itself in order after a fork is swallowed.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            worker.start()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            theirs.close()
            ends[ours] = worker
        yield Workers(ends)
    finally:
        for process in ends.values():
            process.terminate()
        for process in ends.values():
            process.join()


def jobs_here(stages: Iterable[Stage], numbers: Mapping[str, int]) -> int:
    """How many machines of these stages this host has CPUs and memory for at once, at least 1."""
    largest = max(stage.size(options_of(stage, numbers)).machine_mib for stage in stages)
    return machines_at_once(largest)


def machines_at_once(mib_each: int) -> int:
    """How many machines of that size this host has CPUs and memory for, at least 1."""
    by_memory = (available_memory_mib() - _HOST_MIB) // mib_each
    return max(1, min(len(os.sched_getaffinity(0)) // _CPUS_EACH, by_memory))


def _serve(tasks: Connection, work: Work, jobs: int, parent: int) -> None:
    """A worker's life. It ends by SIGTERM, which this program takes for an interrupt."""
    prefer_this()  # else the machines of the others keep us from answering ours
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        return
    setups: dict[str, RunSetup] = {}
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        task = tasks.recv()  # not every run has controls
        with Hypervisor(work.connect) as hypervisor:
            while True:
                tasks.send(_done(task, work, setups, hypervisor, jobs))
                task = tasks.recv()
    except (KeyboardInterrupt, EOFError, BrokenPipeError):
        return
    except StagesError as error:
        tasks.send(_Failed.of(error))


def _done(
    task: _Task, work: Work, setups: dict[str, RunSetup], hypervisor: Hypervisor, jobs: int
) -> Trial | _Failed:
    stage = next(stage for stage in work.stages if stage.label == task.stage)
    control = stage.control(task.control)
    try:
        if stage.label not in setups:
            setups[stage.label] = setup_of(stage, (), work.choice, work.options, hypervisor)
        setup = setups[stage.label]
        kernels = with_controls(setup.kernels, stage, work.choice, [control])
        setup = replace(
            setup, kernels=kernels, folder=task.folder, nonce=task.made.nonce, jobs=jobs
        )
        return run_trial(setup, TrialPlan(task.plan, control))
    except StagesError as error:
        return _Failed.of(error)
    except Exception:
        return _Failed(f"trial {task.plan}: {traceback.format_exc()}")

# SPDX-License-Identifier: GPL-2.0-only
"""pytest plugin: the one hypervisor that the stages' tests share, and a QEMU for it to use.

libvirt's embedded driver can be opened with one folder only in the life of a process.
"""

from __future__ import annotations

import os
import subprocess
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from common.checks.model import Control
from common.host.accel import probe
from common.host.processes.precedence import prefer_this
from common.host.qemu_binary import qemu_path, qemu_version
from common.machine.hypervisor import Hypervisor
from common.paths import CHECKOUT
from common.record.evidence import Trial
from common.run.kernels import Kernels, kernels_of
from common.run.options import RunOptions
from common.run.setup import RunSetup, TrialPlan, setup_of
from common.run.stage_run import run_attempts
from common.stage.configured import configured
from common.stage.declaration import Stage
from common.stage.kernel_choice import KernelChoice
from common.stage.loading import load_stage
from common.suites.damage.lives import Bench
from common.suites.damage.run import try_point


@pytest.fixture(scope="session")
def hypervisor() -> Iterator[Hypervisor]:
    """An open connection to the embedded driver."""
    if "PYTEST_XDIST_WORKER" in os.environ:  # see common/run/workers.py
        prefer_this()
    with Hypervisor() as opened:
        yield opened


class SetupFor(Protocol):
    """See `setup_for`."""

    def __call__(
        self, stage: Stage, numbers: Mapping[str, int], controls: Sequence[Control] = ()
    ) -> RunSetup: ...


@pytest.fixture(scope="module")
def setup_for(tmp_path_factory: pytest.TempPathFactory, hypervisor: Hypervisor) -> SetupFor:
    """What trials of a stage share, its kernels built, in a folder of the module's tests."""

    def make(
        stage: Stage, numbers: Mapping[str, int], controls: Sequence[Control] = ()
    ) -> RunSetup:
        setup = setup_of(stage, controls, KernelChoice(), RunOptions(numbers=numbers), hypervisor)
        return replace(setup, folder=tmp_path_factory.mktemp(stage.label))

    return make


def quiet_trial(setup: RunSetup, plan: TrialPlan) -> Trial:
    """The trial, by the attempt that counts; those before it are told in pytest's summary."""
    *before, last = run_attempts(setup, plan)
    for trial in before:
        folder = setup.folder / trial.setting.name
        warnings.warn(f"{plan.name} was disturbed, and run again: {folder}", stacklevel=2)
    return last


class Damaged(Protocol):
    """See `damaged`."""

    def __call__(self, stage: int, point: str, control: Control | None = None) -> str:
        """The verdict on that point of the stage's handover, and why; with a control's kernels."""


@pytest.fixture
def damaged(hypervisor: Hypervisor, tmp_path: Path) -> Damaged:
    """Damages one point for real: `sweep N --damage --point NAME`."""

    def damage(stage: int, point: str, control: Control | None = None) -> str:
        choice = KernelChoice()
        declared = configured(load_stage(stage), choice=choice)
        kernels = kernels_of(declared, choice, controls=[control] if control else [])
        if control:
            outgoing, incoming = kernels.controls[control.name]
            kernels = Kernels(outgoing=outgoing, incoming=incoming)
        verdict = try_point(Bench(declared, kernels, probe(), hypervisor), point, tmp_path)
        return f"{verdict.status}: {verdict.why}"

    return damage


@pytest.fixture(scope="session")
def other_qemu() -> Path:
    """A QEMU that writes its trace in the other form than the machine's own does.

    Debian's, unpacked into the cache; tests that want it are skipped where it cannot be had.
    """
    own = int(qemu_version(qemu_path()).partition(".")[0])
    suite = "trixie-backports" if own < 11 else "trixie"
    return _from_debian("other-qemu", suite)


@pytest.fixture(scope="session")
def debian_kernel() -> Path:
    """A folder with Debian 13's kernel as it comes: vmlinuz, and modules/.

    Skipped like `other_qemu`.
    """
    return _from_debian("debian-kernel", "trixie")


def _from_debian(script: str, suite: str) -> Path:
    """What that script of common/host unpacks into the cache."""
    command = ["sh", str(CHECKOUT / "common" / "host" / script), suite]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        pytest.skip(f"{script} {suite}: {said[-1]} (it needs apt-get and a Debian mirror)")
    return Path(done.stdout.strip())

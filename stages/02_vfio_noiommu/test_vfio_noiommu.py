# SPDX-License-Identifier: GPL-2.0-only
"""Stage 2 for real: a device that keeps writing through a kexec; then every control."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from common.checks.model import Control
from common.errors import UsageError
from common.host.accel import probe
from common.host.qemu_binary import VARIABLE
from common.judge.verdict import judge_control, judge_trial
from common.machine.hypervisor import Hypervisor
from common.run.kernels import control_kernels, kernel_pair
from common.run.setup import RunSetup, TrialPlan
from common.stage.kernel_choice import KernelChoice
from common.stage.loading import load_stage, unbroken
from common.suites.pytest_plugin import quiet_trial

STAGE = load_stage(2)
OPTIONS = {option.parameter: option.default for option in STAGE.options}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, hypervisor: Hypervisor) -> RunSetup:
    outgoing, incoming = kernel_pair(STAGE, KernelChoice())
    return RunSetup(
        stage=STAGE,
        outgoing=outgoing,
        incoming=incoming,
        accelerator=probe(),
        hypervisor=hypervisor,
        options=OPTIONS,
        folder=tmp_path_factory.mktemp("stage2"),
        control_kernels=control_kernels(STAGE, STAGE.controls, KernelChoice()),
    )


def test_passes(bench: RunSetup) -> None:
    verdict = judge_trial(quiet_trial(bench, TrialPlan("main")), STAGE)
    assert (verdict.status, verdict.why) == ("PASS", f"{len(STAGE.checks)} checks")


def test_passes_with_the_other_qemu(
    bench: RunSetup, other_qemu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the two forms in which QEMU writes a trace, the one that `test_passes` has not read."""
    monkeypatch.setenv(VARIABLE, str(other_qemu))
    with_other = replace(bench, accelerator=probe())
    trial = quiet_trial(with_other, TrialPlan("other-qemu"))
    assert trial.setting.host.emulator == str(other_qemu)
    verdict = judge_trial(trial, STAGE)
    assert (verdict.status, verdict.why) == ("PASS", f"{len(STAGE.checks)} checks")


@pytest.mark.parametrize("control", STAGE.controls, ids=lambda control: control.name)
def test_control_fails_for_its_own_reason(bench: RunSetup, control: Control) -> None:
    trial = quiet_trial(bench, TrialPlan(f"control-{control.name}", control))
    verdict = judge_control(trial, control, STAGE)
    assert verdict.status == "FAILED AS IT MUST", verdict.why


def test_every_check_is_broken_by_a_control() -> None:
    assert unbroken(STAGE, earlier=[load_stage(1)]) == []


def test_a_ring_too_small_is_refused_with_the_numbers() -> None:
    with pytest.raises(UsageError, match=r"1000 frames/s x 7 s .* = 7000 frames, .* for 3584"):
        STAGE.size(OPTIONS | {"ring": 4096})


def test_a_ring_larger_than_the_guest_is_refused() -> None:
    with pytest.raises(UsageError, match="takes 64 MiB of the guest's 64"):
        STAGE.size(OPTIONS | {"ring": 32768, "guest_memory": 64})


def test_a_control_kernel_lacks_one_patch() -> None:
    for control in STAGE.controls:
        missing = {p.name for p in STAGE.patches()} - {p.name for p in STAGE.patches(control)}
        if control.stock:
            assert STAGE.patches(control) == ()
        elif control.without_patch:
            assert [name.startswith(control.without_patch) for name in missing] == [True]
        else:
            assert missing == set()

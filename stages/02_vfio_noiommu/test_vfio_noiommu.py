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
from common.run.setup import RunSetup, TrialPlan
from common.stage.loading import load_stage, unbroken
from common.stage.series import patches_of
from common.suites.pytest_plugin import SetupFor, quiet_trial

STAGE = load_stage(2)
OPTIONS = {option.parameter: option.default for option in STAGE.options}


@pytest.fixture(scope="module")
def run_setup(setup_for: SetupFor) -> RunSetup:
    return setup_for(STAGE, OPTIONS, STAGE.controls)


def test_passes(run_setup: RunSetup) -> None:
    verdict = judge_trial(quiet_trial(run_setup, TrialPlan("main")), STAGE)
    assert (verdict.status, verdict.why) == ("PASS", f"{len(STAGE.checks)} checks")


def test_passes_with_the_other_qemu(
    run_setup: RunSetup, other_qemu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the two forms in which QEMU writes a trace, the one that `test_passes` has not read."""
    monkeypatch.setenv(VARIABLE, str(other_qemu))
    with_other = replace(run_setup, accelerator=probe())
    trial = quiet_trial(with_other, TrialPlan("other-qemu"))
    assert trial.setting.host.emulator == str(other_qemu)
    verdict = judge_trial(trial, STAGE)
    assert (verdict.status, verdict.why) == ("PASS", f"{len(STAGE.checks)} checks")


@pytest.mark.parametrize("control", STAGE.controls, ids=lambda control: control.name)
def test_control_fails_for_its_own_reason(run_setup: RunSetup, control: Control) -> None:
    trial = quiet_trial(run_setup, TrialPlan(f"control-{control.name}", control))
    verdict = judge_control(trial, control, STAGE)
    assert verdict.status == "FAILED AS EXPECTED", verdict.why


@pytest.mark.parametrize("last", ["session", "memory", "bind"])
def test_a_taker_is_killed_after_any_other_step(run_setup: RunSetup, last: str) -> None:
    """Of those that are no controls by themselves."""
    control = replace(STAGE.control("taker-killed-map"), name=f"taker-killed-{last}")
    stage = replace(run_setup.stage, controls=(control,))
    trial = quiet_trial(replace(run_setup, stage=stage), TrialPlan(control.name, control))
    verdict = judge_control(trial, control, STAGE)
    assert verdict.status == "FAILED AS EXPECTED", verdict.why


def test_hostile_fixups_do_the_device_no_harm(setup_for: SetupFor) -> None:
    """The fault of two controls, with every patch."""
    hostile = replace(STAGE.control("fixups-patch-off"), name="hostile", without_patch=None)
    setup = setup_for(STAGE, OPTIONS, (hostile,))
    kernels = replace(
        setup.kernels,
        outgoing=setup.pair(hostile)[0],
        incoming=setup.pair(hostile)[1],
    )
    trial = quiet_trial(replace(setup, kernels=kernels), TrialPlan("hostile"))
    verdict = judge_trial(trial, STAGE)
    assert (verdict.status, verdict.why) == ("PASS", f"{len(STAGE.checks)} checks")


def test_every_check_is_broken_by_a_control() -> None:
    assert unbroken(STAGE, earlier=[load_stage(1)]) == []


def test_a_ring_too_small_is_refused_with_the_numbers() -> None:
    with pytest.raises(UsageError, match=r"1000 frames/s x 7 s .* = 7000 frames, .* for 3584"):
        STAGE.size(OPTIONS | {"ring": 4096})


def test_a_ring_larger_than_the_guest_is_refused() -> None:
    with pytest.raises(UsageError, match="takes 64 MiB of the guest's 64"):
        STAGE.size(OPTIONS | {"ring": 32768, "guest_memory": 64})


def test_a_control_kernel_lacks_one_patch_and_what_builds_on_it() -> None:
    for control in STAGE.controls:
        missing = {p.name for p in patches_of(STAGE)} - {p.name for p in patches_of(STAGE, control)}
        if control.stock:
            assert patches_of(STAGE, control) == ()
        elif without := control.without_patch:
            assert len(missing) == (1 if isinstance(without, str) else len(without))
            assert all(name[len("0001-") :].startswith(without) for name in missing)
        else:
            assert missing == set()

# SPDX-License-Identifier: GPL-2.0-only
"""Stage 3 with QEMU for real: the main run, and the controls that `demo` shows of it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from common.checks.model import Control
from common.judge.verdict import judge_control, judge_trial
from common.run.guest_image import GuestImage
from common.run.setup import RunSetup, TrialPlan
from common.stage.configured import configured
from common.stage.loading import load_stage, unbroken
from common.suites.pytest_plugin import SetupFor, quiet_trial

STAGE = load_stage(3, "qemu")
OPTIONS = {option.parameter: option.default for option in STAGE.options}
# An interrupt that nobody makes up: what no frame that follows puts right.
SHORT = ("not-injected",)
REAL = (
    STAGE.controls
    if os.environ.get("KEXEC_STAGES_ALL_CONTROLS") == "1"
    else tuple(STAGE.control(name) for name in SHORT)
)


@pytest.fixture(scope="module")
def run_setup(setup_for: SetupFor) -> RunSetup:
    return setup_for(STAGE, OPTIONS)


def test_passes(run_setup: RunSetup) -> None:
    verdict = judge_trial(quiet_trial(run_setup, TrialPlan("main")), STAGE)
    assert (verdict.status, verdict.why) == ("PASS", f"{len(STAGE.checks)} checks")


@pytest.mark.parametrize("control", REAL, ids=lambda control: control.name)
def test_control_fails_for_its_own_reason(run_setup: RunSetup, control: Control) -> None:
    trial = quiet_trial(run_setup, TrialPlan(f"control-{control.name}", control))
    verdict = judge_control(trial, control, STAGE)
    assert verdict.status == "FAILED AS EXPECTED", verdict.why


def test_a_distributions_kernel_passes(run_setup: RunSetup, debian_kernel: Path) -> None:
    """Debian's, with its own igb."""
    stage = configured(STAGE, own_guest=True)
    kernel, modules = debian_kernel / "vmlinuz", debian_kernel / "modules"
    setup = replace(
        run_setup,
        stage=stage,
        kernels=replace(run_setup.kernels, guest=None),
        guest_image=GuestImage(kernel=kernel, modules=modules),
    )
    verdict = judge_trial(quiet_trial(setup, TrialPlan("distribution")), stage)
    assert (verdict.status, verdict.why) == ("PASS", f"{len(stage.checks)} checks")


def test_every_check_is_broken_by_a_control() -> None:
    earlier = [load_stage(1), load_stage(1, "qemu"), load_stage(2), load_stage(3)]
    assert unbroken(STAGE, earlier=earlier) == []


def test_controls_name_checks_that_there_are() -> None:
    names = {check.name for check in STAGE.checks}
    for control in STAGE.controls:
        assert control.breaks <= names
        assert (control.may_break or frozenset()) <= names

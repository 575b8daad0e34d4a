# SPDX-License-Identifier: GPL-2.0-only
"""Stage 3 for real: main run and the controls that need no kernels of their own.

`demo` and `run 3` run all of them; so does KEXEC_STAGES_ALL_CONTROLS=1."""

from __future__ import annotations

import os

import pytest

from common.checks.model import Control
from common.errors import UsageError
from common.judge.verdict import judge_control, judge_trial
from common.run.setup import RunSetup, TrialPlan
from common.stage.loading import load_stage, unbroken
from common.stage.series import patches_of
from common.suites.pytest_plugin import SetupFor, quiet_trial

STAGE = load_stage(3)
OPTIONS = {option.parameter: option.default for option in STAGE.options}
ALL = os.environ.get("KEXEC_STAGES_ALL_CONTROLS") == "1"
REAL = tuple(control for control in STAGE.controls if ALL or not control.own_kernels)


@pytest.fixture(scope="module")
def run_setup(setup_for: SetupFor) -> RunSetup:
    return setup_for(STAGE, OPTIONS, REAL)


def test_passes(run_setup: RunSetup) -> None:
    verdict = judge_trial(quiet_trial(run_setup, TrialPlan("main")), STAGE)
    assert (verdict.status, verdict.why) == ("PASS", f"{len(STAGE.checks)} checks")


@pytest.mark.parametrize("control", REAL, ids=lambda control: control.name)
def test_control_fails_for_its_own_reason(run_setup: RunSetup, control: Control) -> None:
    trial = quiet_trial(run_setup, TrialPlan(f"control-{control.name}", control))
    verdict = judge_control(trial, control, STAGE)
    assert verdict.status == "FAILED AS EXPECTED", verdict.why


def test_every_check_is_broken_by_a_control() -> None:
    assert unbroken(STAGE, earlier=[load_stage(1), load_stage(2)]) == []


def test_controls_name_checks_that_there_are() -> None:
    names = {check.name for check in STAGE.checks}
    for control in STAGE.controls:
        assert control.breaks <= names
        assert (control.may_break or frozenset()) <= names


def test_a_control_kernel_lacks_a_patch_and_what_builds_on_it_or_has_one_more() -> None:
    for control in STAGE.controls:
        missing = [p.name[5:] for p in patches_of(STAGE) if p not in patches_of(STAGE, control)]
        more = [p for p in patches_of(STAGE, control) if p not in patches_of(STAGE)]
        if control.stock:
            assert patches_of(STAGE, control) == ()
            continue
        without = control.without_patch or ()
        wanted = [without] if isinstance(without, str) else without
        assert [name.startswith(start) for name, start in zip(missing, wanted, strict=True)] == [
            True
        ] * len(wanted)
        assert more == ([STAGE.folder / control.with_patch] if control.with_patch else [])


def test_a_ring_too_small_is_refused_with_the_numbers() -> None:
    with pytest.raises(UsageError, match=r"1000 frames/s x 10 s .* = 10000 frames, .* for 9856"):
        STAGE.size(OPTIONS | {"ring": 11264})


def test_a_ring_of_half_a_chunk_is_refused() -> None:
    with pytest.raises(UsageError, match="a multiple of 1024"):
        STAGE.size(OPTIONS | {"ring": 12288 + 256})

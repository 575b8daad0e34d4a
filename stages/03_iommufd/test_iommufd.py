# SPDX-License-Identifier: GPL-2.0-only
"""Stage 3: its declaration always; for real only when asked for, as long as it is in work."""

from __future__ import annotations

import os

import pytest

from common.accel import probe
from common.errors import UsageError
from common.hypervisor import Hypervisor
from common.kernel_choice import KernelChoice
from common.kernels import control_kernels, kernel_pair
from common.runner import Bench, Plan, run_trial
from common.stage import Control, load_stage
from common.verdict import judge_control, judge_trial

STAGE = load_stage(3)
OPTIONS = {option.parameter: option.default for option in STAGE.options}
# Stages 1 and 2 break these themselves, with controls of their own: they are the same objects.
SHARED = frozenset(check.name for number in (1, 2) for check in load_stage(number).checks)
# What no control breaks yet; README.md says so.
NOT_YET_BROKEN = frozenset({"pinned"})

for_real = pytest.mark.skipif(
    STAGE.in_work is not None and os.environ.get("KEXEC_STAGES_IN_WORK") != "1",
    reason="stage 3 is in work: KEXEC_STAGES_IN_WORK=1 runs it all the same",
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, hypervisor: Hypervisor) -> Bench:
    outgoing, incoming = kernel_pair(STAGE, KernelChoice())
    return Bench(
        stage=STAGE,
        outgoing=outgoing,
        incoming=incoming,
        accelerator=probe(),
        hypervisor=hypervisor,
        options=OPTIONS,
        folder=tmp_path_factory.mktemp("stage3"),
        control_kernels=control_kernels(STAGE, STAGE.controls, KernelChoice()),
    )


@for_real
def test_passes(bench: Bench) -> None:
    verdict = judge_trial(run_trial(bench, Plan("main")), STAGE)
    assert (verdict.status, verdict.why) == ("PASS", f"{len(STAGE.checks)} checks")


@for_real
@pytest.mark.parametrize("control", STAGE.controls, ids=lambda control: control.name)
def test_control_fails_for_its_own_reason(bench: Bench, control: Control) -> None:
    trial = run_trial(bench, Plan(f"control-{control.name}", control))
    verdict = judge_control(trial, control, STAGE)
    assert verdict.status == "FAILED AS IT MUST", verdict.why


def test_what_no_control_breaks_is_known() -> None:
    broken = frozenset().union(*(control.breaks for control in STAGE.controls))
    assert {check.name for check in STAGE.checks} - broken - SHARED == NOT_YET_BROKEN


def test_controls_name_checks_that_there_are() -> None:
    names = {check.name for check in STAGE.checks}
    for control in STAGE.controls:
        assert control.breaks <= names
        assert (control.may_break or frozenset()) <= names


def test_a_control_kernel_lacks_one_patch() -> None:
    for control in STAGE.controls:
        missing = [p.name for p in STAGE.patches() if p not in STAGE.patches(control)]
        wanted = [control.without_patch] if control.without_patch else []
        assert [name.startswith(start) for name, start in zip(missing, wanted, strict=True)] == [
            True
        ] * len(wanted)


def test_a_ring_too_small_is_refused_with_the_numbers() -> None:
    with pytest.raises(UsageError, match=r"1000 frames/s x 6 s .* = 6000 frames, .* for 5376"):
        STAGE.size(OPTIONS | {"ring": 6144})


def test_a_ring_of_half_a_chunk_is_refused() -> None:
    with pytest.raises(UsageError, match="a multiple of 1024"):
        STAGE.size(OPTIONS | {"ring": 8192 + 256})

# SPDX-License-Identifier: GPL-2.0-only
"""Stage 1 with QEMU for real: the main run with two vCPUs, and the two controls that tell most."""

from __future__ import annotations

import pytest

from common.accel import probe
from common.hypervisor import Hypervisor
from common.kernel_choice import KernelChoice
from common.kernels import guest_kernel, kernel_pair
from common.runner import Bench, Plan, run_trial
from common.stage import load_stage
from common.verdict import judge_control, judge_trial

STAGE = load_stage(1, "qemu")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, hypervisor: Hypervisor) -> Bench:
    outgoing, incoming = kernel_pair(STAGE, KernelChoice())
    return Bench(
        stage=STAGE,
        outgoing=outgoing,
        incoming=incoming,
        guest=guest_kernel(STAGE, KernelChoice()),
        accelerator=probe(),
        hypervisor=hypervisor,
        options={"guest_memory": 128, "vcpus": 2},
        folder=tmp_path_factory.mktemp("stage1-qemu"),
    )


def test_passes(bench: Bench) -> None:
    verdict = judge_trial(run_trial(bench, Plan("main")), STAGE)
    assert (verdict.status, verdict.why) == ("PASS", f"{len(STAGE.checks)} checks")


@pytest.mark.parametrize("name", ["not-preserved", "byte-flipped"])
def test_control_fails_for_its_own_reason(bench: Bench, name: str) -> None:
    control = STAGE.control(name)
    verdict = judge_control(run_trial(bench, Plan(f"control-{name}", control)), control, STAGE)
    assert verdict.status == "FAILED AS IT MUST", verdict.why


def test_every_check_is_broken_by_a_control() -> None:
    broken = frozenset().union(*(control.breaks for control in STAGE.controls))
    assert {check.name for check in STAGE.checks} == broken

# SPDX-License-Identifier: GPL-2.0-only
"""Stage 1 for real: a machine, two kernels, a kexec; then every control."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.accel import probe
from common.hypervisor import Hypervisor
from common.kernels import kernel_pair
from common.runner import Bench, Plan, run_trial
from common.stage import Control, load_stage
from common.verdict import judge_control, judge_trial

STAGE = load_stage(1)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    trees = argparse.Namespace(tree=None, outgoing_tree=None, incoming_tree=None)
    outgoing, incoming = kernel_pair(STAGE, trees)
    with Hypervisor() as hypervisor:
        yield Bench(
            stage=STAGE,
            outgoing=outgoing,
            incoming=incoming,
            accelerator=probe(),
            hypervisor=hypervisor,
            options={"guest_memory": 64, "vcpus": 1},
            folder=tmp_path_factory.mktemp("stage1"),
        )


def test_passes(bench: Bench) -> None:
    verdict = judge_trial(run_trial(bench, Plan("main")), STAGE)
    assert (verdict.status, verdict.why) == ("PASS", f"{len(STAGE.checks)} checks")


def test_two_vcpus(bench: Bench, tmp_path: Path) -> None:
    more = Bench(**{**vars(bench), "options": {"guest_memory": 64, "vcpus": 2}, "folder": tmp_path})
    verdict = judge_trial(run_trial(more, Plan("main")), STAGE)
    assert verdict.status == "PASS", verdict.why


@pytest.mark.parametrize("control", STAGE.controls, ids=lambda control: control.name)
def test_control_fails_for_its_own_reason(bench: Bench, control: Control) -> None:
    trial = run_trial(bench, Plan(f"control-{control.name}", control))
    verdict = judge_control(trial, control, STAGE)
    assert verdict.status == "FAILED AS IT MUST", verdict.why


def test_every_check_is_broken_by_a_control() -> None:
    broken = frozenset().union(*(control.breaks for control in STAGE.controls))
    assert {check.name for check in STAGE.checks} == broken

# SPDX-License-Identifier: GPL-2.0-only
"""Stage 1 with QEMU for real: the main run with two vCPUs, and the two controls that tell most."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest

from common.judge.verdict import judge_control, judge_trial
from common.run.guest_image import GuestImage
from common.run.initramfs import make_initramfs
from common.run.setup import RunSetup, TrialPlan
from common.stage.configured import configured
from common.stage.loading import load_stage
from common.suites.pytest_plugin import SetupFor, quiet_trial

STAGE = load_stage(1, "qemu")
OWN = configured(STAGE, own_guest=True)


@pytest.fixture(scope="module")
def run_setup(setup_for: SetupFor) -> RunSetup:
    return setup_for(STAGE, {"guest_memory": 128, "vcpus": 2})


def test_passes(run_setup: RunSetup) -> None:
    verdict = judge_trial(quiet_trial(run_setup, TrialPlan("main")), STAGE)
    assert (verdict.status, verdict.why) == ("PASS", f"{len(STAGE.checks)} checks")


@pytest.mark.parametrize("name", ["not-preserved", "byte-flipped"])
def test_control_fails_for_its_own_reason(run_setup: RunSetup, name: str) -> None:
    control = STAGE.control(name)
    verdict = judge_control(
        quiet_trial(run_setup, TrialPlan(f"control-{name}", control)), control, STAGE
    )
    assert verdict.status == "FAILED AS EXPECTED", verdict.why


def test_every_check_is_broken_by_a_control() -> None:
    for stage in (STAGE, OWN):
        broken = frozenset().union(*(control.breaks for control in stage.controls))
        assert {check.name for check in stage.checks} == broken


# A guest that knows nothing of us: it says that it is there, and counts.
_INIT = """
#include <stdio.h>
#include <unistd.h>

static volatile unsigned long count;

int main(void)
{
	puts("up");
	for (;;) {
		usleep(1000);
		count++;
	}
}
"""


@pytest.fixture(scope="module")
def own(run_setup: RunSetup, tmp_path_factory: pytest.TempPathFactory) -> RunSetup:
    folder = tmp_path_factory.mktemp("own-guest")
    init = folder / "init"
    command = ["gcc", "-static", "-O2", "-x", "c", "-", "-o", str(init)]
    subprocess.run(command, input=_INIT, text=True, check=True)
    tool = run_setup.kernels.outgoing.gen_init_cpio
    initrd = make_initramfs({"/init": init}, gen_init_cpio=tool, target=folder / "initrd")
    assert run_setup.kernels.guest
    image = GuestImage(kernel=run_setup.kernels.guest.image, initrd=initrd)
    return replace(
        run_setup,
        stage=OWN,
        kernels=replace(run_setup.kernels, guest=None),
        guest_image=image,
        folder=folder,
    )


def test_a_guest_of_the_users_own_passes(own: RunSetup) -> None:
    verdict = judge_trial(quiet_trial(own, TrialPlan("main")), OWN)
    assert (verdict.status, verdict.why) == ("PASS", f"{len(OWN.checks)} checks")


@pytest.mark.parametrize("name", ["pages-copied", "paused-early"])
def test_a_control_of_the_users_own_fails_for_its_own_reason(own: RunSetup, name: str) -> None:
    control = OWN.control(name)
    verdict = judge_control(quiet_trial(own, TrialPlan(f"control-{name}", control)), control, OWN)
    assert verdict.status == "FAILED AS EXPECTED", verdict.why

# SPDX-License-Identifier: GPL-2.0-only
"""A stage as one run has it: lane, kernels. What is run is what a stored run is judged as."""

from __future__ import annotations

from common.chain import with_chain
from common.kernel_choice import KernelChoice, with_kernels, with_recorded_kernels
from common.lane import Lane, in_lane
from common.record import Setting
from common.stage import Stage


def as_run(
    stage: Stage, *, lane: Lane = "default", choice: KernelChoice | None = None, chain: int = 1
) -> Stage:
    """The stage as the options ask for it."""
    return with_chain(with_kernels(in_lane(stage, lane), choice or KernelChoice()), chain)


def left_out(stage: Stage) -> str:
    """Which controls cannot be run on the kernels that were given, and why; empty for none."""
    if not stage.left_out:
        return ""
    return f"{', '.join(stage.left_out)} (their kernels are built from our series)"


def as_recorded(stage: Stage, setting: Setting) -> Stage:
    """The stage as a stored trial says that it was run."""
    return with_chain(with_recorded_kernels(in_lane(stage, setting.lane), setting), setting.chain)

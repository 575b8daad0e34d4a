# SPDX-License-Identifier: GPL-2.0-only
"""A stage as one run configures it: lane, kernels. A stored run is judged by the same."""

from __future__ import annotations

from common.errors import UsageError
from common.record.setting import Setting
from common.stage.chain import with_chain
from common.stage.declaration import Stage
from common.stage.kernel_choice import KernelChoice, with_kernels, with_recorded_kernels
from common.stage.lane import Lane, in_lane


def configured(
    stage: Stage,
    *,
    lane: Lane = "default",
    choice: KernelChoice | None = None,
    chain: int = 1,
    own_guest: bool = False,
) -> Stage:
    """The stage as the options ask for it. Raises UsageError where it cannot be so."""
    stage = with_kernels(in_lane(stage, lane), choice or KernelChoice())
    return with_chain(_with_guest(stage, own=own_guest), chain)


def _with_guest(stage: Stage, *, own: bool) -> Stage:
    if not own:
        return stage
    if stage.own_guest is None:
        raise UsageError(
            f"stage {stage.number} boots no guest here that could be another: --guest-image goes"
            " with run 1 and run 3, with --workload qemu"
        )
    return stage.own_guest(stage)


def skipped_in_words(stage: Stage) -> str:
    """Which controls cannot be run on the kernels that were given, and why; empty for none."""
    if not stage.config.skipped_controls:
        return ""
    return f"{', '.join(stage.config.skipped_controls)} (their kernels are built from our series)"


def configured_as_recorded(stage: Stage, setting: Setting) -> Stage:
    """The stage as a stored trial says that it was run."""
    stage = with_recorded_kernels(in_lane(stage, setting.lane), setting)
    return with_chain(_with_guest(stage, own=setting.guest_image is not None), setting.chain)

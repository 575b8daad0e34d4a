# SPDX-License-Identifier: GPL-2.0-only
"""A series patch by patch: each is built without a warning, booted, and live-updated.

What a list asks of a series, so that a bisection can stop anywhere in it. Each prefix of the
series is a pair of kernels with the stage's configuration; they run stage 1's live update in
the machine of the stage, so that drivers and devices are there.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.errors import Exit, UsageError
from common.judge.verdict import Verdict
from common.machine.hypervisor import Hypervisor
from common.run.kernels import kernels_of
from common.run.options import RunOptions
from common.run.setup import options_of, plan_trials
from common.run.stage_run import execute_run
from common.stage.configured import configured
from common.stage.declaration import Stage
from common.stage.kernel_choice import KernelChoice
from common.stage.loading import load_stage
from common.stage.series import own_patches, patches_of, series_fragments
from kernel import cache
from kernel.image.prebuilt import Bootable
from kernel.make import config

_WARNING = re.compile(r"\bwarning: ")


@dataclass(frozen=True)
class Step:
    """The series up to one of its patches."""

    patch: Path
    build_seconds: float
    warnings: tuple[str, ...]
    """Of what had to be compiled anew: a file is compiled with the first patch that changes it."""
    verdict: Verdict
    run: Path

    @property
    def fell(self) -> bool:
        """Whether a list would not take it: it warns, or did not update live."""
        return bool(self.warnings) or self.verdict.exit is not Exit.PASS


def steps(
    stage: Stage,
    choice: KernelChoice,
    options: RunOptions,
    hypervisor: Hypervisor,
    *,
    first: int = 1,
) -> Iterator[Step]:
    """A step for each patch of the stage's series, in order, from the `first`-th on.

    Raises UsageError where there is no series or not so long a one, and what a build raises for
    the first patch that does not apply or build.
    """
    if choice.prebuilt:
        raise UsageError("each patch is built: give a --tree or a --package, not an --image")
    all_patches, own = patches_of(stage), own_patches(stage)
    before = len(all_patches) - len(own)
    if not own:
        raise UsageError(f"stage {stage.number} has no series: its kernel is the source as it is")
    if first > len(own):
        raise UsageError(
            f"--from {first}: the series of stage {stage.number} has {len(own)} patches"
        )
    for number, patch in enumerate(own[first - 1 :], start=first):
        print(f"{number} of {len(own)}: {patch.stem}", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="series-") as name:
            folder = Path(name)
            _prefix(all_patches[: before + number], series_fragments(stage), folder)
            booted = _stage_1_in_machine_of(stage, replace(choice, series=folder), options)
            begin = time.monotonic()
            kernels = kernels_of(booted, choice)
            seconds = time.monotonic() - begin
            _record, verdict, run = execute_run(booted, plan_trials(), choice, options, hypervisor)
        yield Step(patch, seconds, _warnings((kernels.outgoing, kernels.incoming)), verdict, run)


def _prefix(patches: Sequence[Path], fragments: Sequence[Path], folder: Path) -> None:
    """A series of those patches, with those of the fragments' symbols that they define."""
    for number, patch in enumerate(patches, start=1):
        (folder / f"{number:04}-{patch.name[5:]}").write_bytes(patch.read_bytes())
    defined = config.defined_by_patches(patches)
    wanted = [w for w in config.requests(fragments).values() if w.symbol in defined]
    (folder / "series.config").write_text(config.merged(wanted))


def _warnings(kernels: Sequence[Bootable]) -> tuple[str, ...]:
    logs = [kernel.image.with_name(cache.LOG).read_text(errors="replace") for kernel in kernels]
    lines = [line for log in logs for line in log.splitlines() if _WARNING.search(line)]
    return tuple(dict.fromkeys(lines))


def _stage_1_in_machine_of(stage: Stage, choice: KernelChoice, options: RunOptions) -> Stage:
    first = configured(load_stage(1), choice=choice)
    devices = stage.devices(options_of(stage, options.numbers))
    fragments = (stage.folder / "kernel.config", *first.config.extra_fragments)
    return replace(
        first,
        config=replace(first.config, extra_fragments=fragments),
        cmdline=(*first.cmdline, *(w for w in stage.cmdline if w not in first.cmdline)),
        devices=lambda _options: devices,
        qemu_args=stage.qemu_args,
    )

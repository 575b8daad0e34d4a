# SPDX-License-Identifier: GPL-2.0-only
"""The two kernels of a stage, from the user's choice of trees, with the build's progress shown."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from common.paths import CHECKOUT
from common.stage import Control, Stage
from kernel.build import KernelSpec, build
from kernel.cache import Kernel
from kernel.events import Compiled, Event, Finished, Started, Waiting
from kernel.source import Source, debian_source, tree_source

PACKAGE = "linux-source-7.3"
BASE_CONFIG = CHECKOUT / "kernel" / "configs" / "base.config"


def kernel_pair(
    stage: Stage, arguments: argparse.Namespace, control: Control | None = None
) -> tuple[Kernel, Kernel]:
    """The outgoing and the incoming kernel; built where the cache has none, shown on stderr.

    For a control with kernels of its own, those.
    """
    progress = BuildProgress()
    both = arguments.tree
    sources = (
        _source(arguments.outgoing_tree or both, progress),
        _source(arguments.incoming_tree or both, progress),
    )
    outgoing, incoming = (
        build(kernel_spec(stage, source, side, control), progress=progress)
        for source, side in zip(sources, ("out", "in"), strict=True)
    )
    return outgoing, incoming


def control_kernels(
    stage: Stage, controls: Iterable[Control], arguments: argparse.Namespace
) -> dict[str, tuple[Kernel, Kernel]]:
    """The pairs of those controls that need kernels of their own, by the control's name."""
    return {
        control.name: kernel_pair(stage, arguments, control)
        for control in controls
        if control.own_kernels
    }


def kernel_spec(
    stage: Stage, source: Source, side: str, control: Control | None = None
) -> KernelSpec:
    """What to build for one side ("out" or "in") of a stage, or of a control of it."""
    name = stage.folder.name if control is None else f"{stage.folder.name} {control.name}"
    if stage.lane != "default":
        name += f" {stage.lane}"
    return KernelSpec(
        source=source,
        label=f"{name} {side}",
        localversion=f"-luo-{side}",
        fragments=(BASE_CONFIG, *stage.fragments(control)),
        patches=stage.patches(control),
    )


def debian_tree() -> Path:
    """The unpacked source of the default kernel."""
    return debian_source(PACKAGE, progress=BuildProgress()).path


def _source(tree: Path | None, progress: BuildProgress) -> Source:
    if tree is None:
        return debian_source(PACKAGE, progress=progress)
    return tree_source(tree, progress=progress)


class BuildProgress:
    """Shows a build's events on stderr: in place on a terminal, every 15 s in a log."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last = 0.0

    def __call__(self, event: Event) -> None:
        """Take one event of the kernel package."""
        match event:
            case Started(phase=phase, detail=detail):
                self._say(f"kernel: {phase.value} {detail}")
            case Waiting(what=what, holder=holder):
                self._say(f"kernel: waiting for {what}, made by process {holder or '?'}")
            case Finished(release=release, cached=False, seconds=seconds, files=files):
                self._say(f"kernel: {release} built in {seconds:.0f} s ({files} files)")
            case Compiled():
                self._compiled(event)

    def _compiled(self, event: Compiled) -> None:
        now = time.monotonic()
        if now - self._last < (0.2 if self._terminal else 15):
            return
        self._last = now
        total = f" of about {event.expected}" if event.expected else ""
        left = f", about {event.eta:.0f} s left" if event.eta is not None else ""
        text = f"kernel: {event.files}{total} files, {event.elapsed:.0f} s{left}"
        if self._terminal:
            print(f"\r{text:<78}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def _say(self, text: str) -> None:
        start = "\r" if self._terminal else ""
        print(f"{start}{text:<78}".rstrip(), file=sys.stderr, flush=True)

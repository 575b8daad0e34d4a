# SPDX-License-Identifier: GPL-2.0-only
"""The two kernels of a stage, from the user's choice, with the build's progress shown."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from common.checks.model import Control
from common.errors import UsageError
from common.paths import CHECKOUT
from common.stage.declaration import Stage
from common.stage.kernel_choice import KernelChoice, Origin, default_origin, with_kernels
from common.stage.loading import load_stage
from kernel.build import KernelSpec, build
from kernel.cache import Kernel
from kernel.events import Compiled, Event, Finished, Noted, Progress, Started, Waiting
from kernel.image.prebuilt import Bootable, Prebuilt, prebuilt, read_header
from kernel.make import config
from kernel.source.archive import archive_source
from kernel.source.source import Source, debian_source, tree_source

BASE_CONFIG = CHECKOUT / "kernel" / "configs" / "base.config"


def kernel_pair(
    stage: Stage, choice: KernelChoice, control: Control | None = None
) -> tuple[Bootable, Bootable]:
    """The outgoing and the incoming kernel; built where the cache has none, shown on stderr.

    The stage is one `with_kernels`. For a control with kernels of its own, those. Raises
    UsageError for the same image under two names.
    """
    progress = BuildProgress()
    outgoing, incoming = (
        _kernel(stage, origin, side, control, progress, line_tables=choice.line_tables)
        for origin, side in zip(choice.origins, ("out", "in"), strict=True)
    )
    if outgoing.build_id == incoming.build_id and not choice.one_kernel:
        raise UsageError(
            f"{choice.outgoing.name} and {choice.incoming.name} are the same kernel (build id"
            f" {outgoing.build_id[:12]}): give --image once"
        )
    return outgoing, incoming


def control_kernels(
    stage: Stage, controls: Iterable[Control], choice: KernelChoice
) -> dict[str, tuple[Bootable, Bootable]]:
    """The pairs of those controls that need kernels of their own, by the control's name."""
    return {
        control.name: kernel_pair(stage, choice, control)
        for control in controls
        if control.own_kernels
    }


def _kernel(
    stage: Stage,
    origin: Origin,
    side: str,
    control: Control | None,
    progress: Progress,
    *,
    line_tables: bool,
) -> Bootable:
    if origin.kind != "image":
        spec = kernel_spec(stage, source_of(origin, progress), side, control)
        return build(replace(spec, line_tables=line_tables), progress=progress)
    read_header(origin.path)  # what is no kernel image shall not wait for a build
    source = source_of(default_origin(), progress)
    plain = with_kernels(load_stage(stage.number), KernelChoice())
    tools = build(kernel_spec(plain, source, side), progress=progress)
    wanted = (BASE_CONFIG, *stage.fragments())
    kernel = prebuilt(origin.path, wanted, tools=tools, scripts=source.path / "scripts")
    if kernel.losses:
        progress(Noted(_losses(kernel)))
    return kernel


def _losses(kernel: Prebuilt) -> str:
    """What of the stage's configuration an image has otherwise; whether it matters, a run shows."""
    first = ", ".join(f"{loss.request} (is {loss.actual})" for loss in kernel.losses[:5])
    more = f" and {len(kernel.losses) - 5} more" if len(kernel.losses) > 5 else ""
    return f"{kernel.image} is configured otherwise than this stage asks for: {first}{more}"


def guest_kernel(stage: Stage, choice: KernelChoice) -> Kernel | None:
    """The kernel of the stage's guest; None without one.

    It is of the outgoing kernel's source, or of the default one where that is an image.
    """
    if stage.guest is None:
        return None
    progress = BuildProgress()
    origin = default_origin() if choice.outgoing.kind == "image" else choice.outgoing
    source = source_of(origin, progress)
    spec = KernelSpec(
        source=source,
        label=f"{stage.label} guest",
        localversion="-guest",
        fragments=stage.guest.fragments,
    )
    return build(spec, progress=progress)


def kernel_spec(
    stage: Stage, source: Source, side: str, control: Control | None = None
) -> KernelSpec:
    """What to build for one side ("out" or "in") of a stage, or of a control of it."""
    control = control.on(side) if control else None
    name = stage.label if control is None else f"{stage.label} {control.name}"
    if stage.lane != "default":
        name += f" {stage.lane}"
    patches = stage.patches(control)

    def known(fragment: Path) -> bool:
        wanted = config.requests([fragment]).keys()
        return wanted <= config.defined_symbols(source.path) | config.defined_by_patches(patches)

    return KernelSpec(
        source=source,
        label=f"{name} {side}",
        localversion=f"-luo-{side}",
        fragments=(BASE_CONFIG, *stage.fragments(control, known=known)),
        patches=patches,
    )


def default_tree() -> Path:
    """The unpacked source of the default kernel."""
    return source_of(default_origin(), BuildProgress()).path


def source_of(origin: Origin, progress: Progress) -> Source:
    """The package's, the tarball's or the tree's source; an image has none."""
    if origin.kind == "package":
        return debian_source(origin.name, progress=progress)
    if origin.kind == "source":
        return archive_source(origin.path, progress=progress)
    return tree_source(origin.path, progress=progress)


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
            case Noted(text=text):
                self._say(f"kernel: {text}")
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

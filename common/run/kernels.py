# SPDX-License-Identifier: GPL-2.0-only
"""The two kernels of a stage, from the user's choice, with the build's progress shown."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.arch.architecture import Architecture
from common.arch.known import DEFAULT
from common.checks.model import Control
from common.errors import UsageError
from common.paths import CHECKOUT
from common.stage.declaration import Stage
from common.stage.kernel_choice import KernelChoice, Origin, default_origin
from common.stage.run_config import RunConfig
from common.stage.series import KernelNeeds, kernel_needs
from kernel.build import KernelSpec, build
from kernel.cache import Kernel
from kernel.events import Compiled, Event, Finished, Noted, Progress, Started, Waiting
from kernel.image.prebuilt import Bootable, Prebuilt, prebuilt, read_header
from kernel.make import config
from kernel.source.archive import archive_source
from kernel.source.source import DEFAULT_SUITE, Source, debian_source, tree_source

_CONFIGS = CHECKOUT / "kernel" / "configs"


def base_configs(arch: Architecture = DEFAULT) -> tuple[Path, Path]:
    """The Kconfig fragments, in order, that each stage's kernel has on top of tinyconfig."""
    return _CONFIGS / "base.config", _CONFIGS / f"{arch.name}.config"


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """The kernels of a run."""

    outgoing: Bootable
    incoming: Bootable
    guest: Kernel | None = None
    """The kernel of the workload's guest, where that is a Linux of ours."""
    controls: Mapping[str, tuple[Bootable, Bootable]] = field(default_factory=dict)
    """Outgoing and incoming kernel of controls that have their own, by name."""


def kernels_of(
    stage: Stage,
    choice: KernelChoice,
    *,
    controls: Iterable[Control] = (),
    progress: Progress | None = None,
) -> Kernels:
    """All kernels of the stage and of those controls; built where the cache has none.

    The stage is one `with_kernels`. Each source is looked through once. Raises UsageError for the
    same image under two names, and what a build raises.
    """
    get = _Getter(stage, choice, progress or BuildProgress())
    outgoing, incoming = get.pair()
    if outgoing.build_id == incoming.build_id and not choice.one_kernel:
        raise UsageError(
            f"{choice.outgoing.name} and {choice.incoming.name} are the same kernel (build id"
            f" {outgoing.build_id[:12]}): give --image once"
        )
    return Kernels(
        outgoing=outgoing,
        incoming=incoming,
        guest=get.guest(),
        controls={c.name: get.pair(c) for c in controls if c.own_kernels},
    )


def with_controls(
    kernels: Kernels, stage: Stage, choice: KernelChoice, controls: Iterable[Control]
) -> Kernels:
    """The same, and those of controls that have their own; built where the cache has none."""
    get = _Getter(stage, choice, BuildProgress())
    return replace(kernels, controls={c.name: get.pair(c) for c in controls if c.own_kernels})


@dataclass(frozen=True)
class _Getter:
    """Gets kernels of one choice, and each of its sources once."""

    stage: Stage
    choice: KernelChoice
    progress: Progress
    _sources: dict[Origin, Source] = field(default_factory=dict)

    def pair(self, control: Control | None = None) -> tuple[Bootable, Bootable]:
        """(outgoing, incoming) kernel; those of the control where it has its own."""
        return (
            self._one(self.choice.outgoing, "out", control),
            self._one(self.choice.incoming, "in", control),
        )

    def guest(self) -> Kernel | None:
        """Of the outgoing kernel's source, or of the default one where that is an image."""
        if self.stage.guest is None or self.stage.config.guest_image:
            return None
        image = self.choice.outgoing.kind == "image"
        spec = KernelSpec(
            source=self._source(default_origin() if image else self.choice.outgoing),
            label=f"{self.stage.label} guest",
            localversion="-guest",
            fragments=self.stage.guest.fragments,
            arch=self.stage.arch,
        )
        return build(spec, progress=self.progress)

    def _one(self, origin: Origin, side: str, control: Control | None) -> Bootable:
        if origin.kind == "image":
            return self._prebuilt(origin, side)
        spec = kernel_spec(self.stage, self._source(origin), side, control)
        return build(replace(spec, line_tables=self.choice.line_tables), progress=self.progress)

    def _prebuilt(self, origin: Origin, side: str) -> Bootable:
        read_header(origin.path)  # what is no kernel image shall not wait for a build
        source = self._source(default_origin())
        # Headers and programs come of the stage's kernel as it is without any choice.
        plain = replace(self.stage, config=RunConfig())
        tools = build(kernel_spec(plain, source, side), progress=self.progress)
        wanted = (*base_configs(self.stage.arch), *kernel_needs(self.stage).certain)
        kernel = prebuilt(origin.path, wanted, tools=tools, scripts=source.path / "scripts")
        if kernel.losses:
            self.progress(Noted(_losses(kernel)))
        return kernel

    def _source(self, origin: Origin) -> Source:
        if origin not in self._sources:
            self._sources[origin] = source_of(origin, self.progress)
        return self._sources[origin]


def _losses(kernel: Prebuilt) -> str:
    """What of the stage's configuration an image has otherwise; whether it matters, a run shows."""
    first = ", ".join(f"{loss.request} (is {loss.actual})" for loss in kernel.losses[:5])
    more = f" and {len(kernel.losses) - 5} more" if len(kernel.losses) > 5 else ""
    return f"{kernel.image} is configured otherwise than this stage asks for: {first}{more}"


def kernel_spec(
    stage: Stage, source: Source, side: str, control: Control | None = None
) -> KernelSpec:
    """What to build for one side ("out" or "in") of a stage, or of a control of it."""
    control = control.on(side) if control else None
    name = stage.label if control is None else f"{stage.label} {control.name}"
    if stage.config.lane != "default":
        name += f" {stage.config.lane}"
    needs = kernel_needs(stage, control)
    return KernelSpec(
        source=source,
        label=f"{name} {side}",
        localversion=f"-luo-{side}",
        fragments=(
            *base_configs(stage.arch),
            *needs.fragments,
            *_known(needs, source),
            *needs.last,
        ),
        patches=needs.patches,
        arch=stage.arch,
    )


def _known(needs: KernelNeeds, source: Source) -> list[Path]:
    """The optional fragments all of whose symbols the patched source has."""
    if not needs.optional:
        return []  # every Kconfig file of a tree takes a second to read
    known = config.defined_symbols(source.path) | config.defined_by_patches(needs.patches)
    return [path for path in needs.optional if config.requests([path]).keys() <= known]


def default_tree() -> Path:
    """The unpacked source of the default kernel."""
    return source_of(default_origin(), BuildProgress()).path


def source_of(origin: Origin, progress: Progress) -> Source:
    """The package's, the tarball's or the tree's source; an image has none."""
    if origin.kind == "package":
        package, at, suite = origin.name.partition("@")
        return debian_source(package, suite=suite if at else DEFAULT_SUITE, progress=progress)
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

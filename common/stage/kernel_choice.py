# SPDX-License-Identifier: GPL-2.0-only
"""Which kernels a command uses, for every verb that builds or boots.

Each side comes from a Debian package (the default), a tree, a tarball of the source, or a prebuilt
image. On top of a source goes a series: ours, none, or a folder of patches. KEXEC_STAGES_SOURCE
names a tree or a tarball that is the default instead, for verbs without such options as well.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from common.arch.architecture import Architecture
from common.arch.known import ARCHITECTURES, DEFAULT
from common.checks.model import Control
from common.errors import UsageError
from common.host.debian import DEFAULT_PACKAGE
from common.record.setting import Setting
from common.stage.declaration import Stage
from common.stage.on_architecture import on_architecture
from common.stage.one_image import with_one_image
from common.stage.series_folder import Series, given_series

SIDES: tuple[Literal["outgoing", "incoming"], ...] = ("outgoing", "incoming")


@dataclass(frozen=True)
class Origin:
    """Where a kernel comes from: `kind` is also the option that says so."""

    kind: Literal["package", "tree", "source", "image"]
    name: str

    @property
    def path(self) -> Path:
        """The tree, the tarball or the image."""
        return Path(self.name).expanduser()

    def words(self, side: str) -> tuple[str, str]:
        """(option, value) on the command line that choose this origin for a side."""
        return f"--{side}-{self.kind}", self.name


def default_origin() -> Origin:
    """Debian's package, unless the environment names a source.

    Raises UsageError where it names none.
    """
    named = os.environ.get("KEXEC_STAGES_SOURCE")
    if not named:
        return Origin("package", DEFAULT_PACKAGE)
    origin = origin_of(named)
    if origin.kind not in ("tree", "source"):
        raise UsageError(
            f"KEXEC_STAGES_SOURCE={named} is neither a kernel tree nor a tarball of one"
        )
    return origin


@dataclass(frozen=True, kw_only=True)
class KernelChoice:
    """What the user chose; the default is Debian's source with our series, on both sides."""

    outgoing: Origin = field(default_factory=default_origin)
    incoming: Origin = field(default_factory=default_origin)
    series: Series = "ours"
    config: tuple[Path, ...] = ()
    """Kconfig fragments of the user's, which come last."""
    arch: Architecture = field(default=DEFAULT, repr=False)
    """What they are built for, and the machine that boots them."""
    line_tables: bool = False
    """Kernels of the same code whose vmlinux tells file and line of each instruction."""

    @property
    def origins(self) -> tuple[Origin, Origin]:
        """(outgoing kernel's, incoming kernel's)."""
        return self.outgoing, self.incoming

    @property
    def prebuilt(self) -> bool:
        """True when a side is an image, of which no variant can be built."""
        return any(origin.kind == "image" for origin in self.origins)

    @property
    def one_kernel(self) -> bool:
        """True when both sides are one image: no build of it tells them apart."""
        return self.prebuilt and self.outgoing == self.incoming


def is_archive(path: Path) -> bool:
    """Whether a file is called as tarballs are."""
    return re.search(r"\.(tar(\.[a-z0-9]+)?|tgz|txz)$", path.name) is not None


def origin_of(text: str) -> Origin:
    """The origin that `text` names: a package, a folder, a tarball, or an image.

    A package is linux-source-X.Y, or linux-source-X.Y@SUITE for that of another suite of Debian's.
    Raises UsageError for what is none of them.
    """
    if re.fullmatch(r"linux-source-[0-9][0-9.]*(@[a-z][a-z-]*)?", text):
        return Origin("package", text)
    path = Path(text).expanduser()
    if path.is_dir():
        return Origin("tree", text)
    if path.is_file():
        return Origin("source" if is_archive(path) else "image", text)
    raise UsageError(f"{text} is not a linux-source-X.Y, kernel tree, tarball or bzImage")


def series_of(text: str) -> Series:
    """The series of that name. Raises UsageError for what is none."""
    if text == "ours":
        return "ours"
    if text == "none":
        return "none"
    return given_series(text)


def with_kernels(stage: Stage, choice: KernelChoice) -> Stage:
    """The stage as it is run on those kernels: its patches, fragments, and possible controls."""
    stage = on_architecture(stage, choice.arch)
    config = replace(
        stage.config,
        series=choice.series,
        extra_fragments=(*stage.config.extra_fragments, *choice.config),
        skipped_controls=_unbuildable(stage.controls, choice.series, prebuilt=choice.prebuilt),
    )
    stage = replace(stage, config=config)
    return with_one_image(stage) if choice.one_kernel else stage


def with_recorded_kernels(stage: Stage, setting: Setting) -> Stage:
    """The stage as a stored trial's kernels had it; nothing is built from it any more."""
    series: Series = Path(setting.series) if setting.series not in ("ours", "none") else "none"
    if setting.series == "ours":
        series = "ours"
    prebuilt = setting.outgoing.prebuilt or setting.incoming.prebuilt
    skipped_controls = _unbuildable(stage.controls, series, prebuilt=prebuilt)
    stage = on_architecture(stage, ARCHITECTURES[setting.architecture])
    config = replace(stage.config, series=series, skipped_controls=skipped_controls)
    stage = replace(stage, config=config)
    return with_one_image(stage) if setting.one_kernel else stage


def _unbuildable(controls: Sequence[Control], series: Series, *, prebuilt: bool) -> tuple[str, ...]:
    """The controls whose kernels there cannot be, or would be the main run's own."""
    return tuple(
        control.name
        for control in controls
        if control.own_kernels
        and (
            prebuilt
            or (series != "ours" and not control.stock)
            or (control.stock and series == "none")
        )
    )

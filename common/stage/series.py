# SPDX-License-Identifier: GPL-2.0-only
"""What a stage's kernels are built with: the patches of a series, and Kconfig fragments."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from common.checks.model import Control
from common.errors import UsageError
from common.paths import CHECKOUT
from common.stage.declaration import Stage
from common.stage.loading import stage_folders
from common.stage.series_folder import series_patches

OURS = CHECKOUT / "kernel" / "series"
_FIXES = "01_liveupdate_fixes"


@dataclass(frozen=True)
class KernelNeeds:
    """What a kernel is built with."""

    patches: tuple[Path, ...]
    """In the order in which they are applied."""
    fragments: tuple[Path, ...]
    """Kconfig, the later ones over the earlier ones."""
    optional: tuple[Path, ...] = ()
    """Fragments for a kernel that knows all their symbols; others are not asked for them."""
    last: tuple[Path, ...] = ()
    """Fragments over all others."""

    @property
    def certain(self) -> tuple[Path, ...]:
        """The fragments that every kernel is asked for."""
        return (*self.fragments, *self.last)


def kernel_needs(stage: Stage, control: Control | None = None) -> KernelNeeds:
    """The needs of the stage's kernels: for a control less what it leaves out, with what it adds.

    Our series brings symbols of its own, and is asked for them. Another series, or a tree with
    support of its own, may have them. Raises UsageError where no patch, or more than one, is of the
    name that a control leaves out.
    """
    stock = control is not None and control.stock
    optional = _symbols_of_others(stage) if stage.config.series != "ours" and not stock else ()
    added = (stage.folder / control.with_config,) if control and control.with_config else ()
    return KernelNeeds(
        patches=patches_of(stage, control),
        fragments=(stage.folder / "kernel.config",),
        optional=optional,
        last=(*(() if stock else series_fragments(stage)), *stage.config.extra_fragments, *added),
    )


def _symbols_of_others(stage: Stage) -> tuple[Path, ...]:
    """What our series up to the stage's ask for: a tree may have what the earlier ones bring."""
    folders = [folder for n, folder in sorted(stage_folders().items()) if n <= stage.number]
    return tuple(path for folder in folders if (path := folder / "series.config").exists())


def patches_of(stage: Stage, control: Control | None = None) -> tuple[Path, ...]:
    """The series in apply order, as a control has it; empty where the stock kernel will do."""
    found = tuple(p for folder in _folders(stage) for p in series_patches(folder))
    if control is None or not control.own_kernels:
        return found
    if control.stock:
        return ()
    more = (stage.folder / control.with_patch,) if control.with_patch else ()
    if control.without_patch is None:
        return (*found, *more)
    without = control.without_patch
    names = (without,) if isinstance(without, str) else without
    for name in names:
        count = sum(_subject(p).startswith(name) for p in found)
        if count != 1:
            raise UsageError(
                f"control {control.name}: {count} patches of the series are named {name}"
            )
    return (*(p for p in found if not _subject(p).startswith(names)), *more)


def _subject(patch: Path) -> str:
    """The patch's name without its number, which changes when another joins the series."""
    return re.sub(r"^[0-9]{4}-", "", patch.name)


def own_patches(stage: Stage) -> tuple[Path, ...]:
    """Of `patches_of` those that no earlier stage has: the last ones."""
    earlier = _ours(stage.number - 1) if stage.config.series == "ours" else ()
    folders = (folder for folder in _folders(stage) if folder not in earlier)
    return tuple(patch for folder in folders for patch in series_patches(folder))


def series_fragments(stage: Stage) -> tuple[Path, ...]:
    """The Kconfig fragments with the symbols that the series brings."""
    if isinstance(stage.config.series, Path):
        return tuple(sorted(stage.config.series.glob("*.config")))
    ours = stage.folder / "series.config"
    return (ours,) if stage.config.series == "ours" and ours.exists() else ()


def _folders(stage: Stage) -> tuple[Path, ...]:
    if isinstance(stage.config.series, Path):
        return (stage.config.series,)
    return _ours(stage.number) if stage.config.series == "ours" else ()


def _ours(number: int) -> tuple[Path, ...]:
    """The folders of our series that the stage of that number needs.

    Stage 1 shows what stock Linux does: the fixes are for those after it.
    """
    found = [folder for n in range(1, number + 1) for folder in sorted(OURS.glob(f"{n:02}_*"))]
    return tuple(folder for folder in found if number > 1 or folder.name != _FIXES)

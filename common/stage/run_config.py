# SPDX-License-Identifier: GPL-2.0-only
"""The choices of one run for a stage; recorded, and a stored run is judged with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.stage.series_folder import Series


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The default is a run without any option; common/stage/configured.py makes the others."""

    lane: Literal["default", "debug", "server"] = "default"
    patience: int = 1
    """How many times as long everything may take; it follows from lane and guest."""
    series: Series = "ours"
    extra_fragments: tuple[Path, ...] = ()
    """Kconfig fragments of the lane, and the user's."""
    one_kernel: bool = False
    """Both sides are one prebuilt image."""
    skipped_controls: tuple[str, ...] = ()
    """Controls that need kernels which cannot be built from what the user gave."""
    chain: int = 1
    """Updates in one machine, one after the other."""
    guest_image: bool = False
    """The guest is an image of the user's."""

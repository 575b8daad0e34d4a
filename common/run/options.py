# SPDX-License-Identifier: GPL-2.0-only
"""What the user chose of a run, out of the hands of whatever parsed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from common.run.guest_image import GuestImage


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What the user chose of a run, beside its stage and kernels."""

    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    cpu: str | None = None
    """Of the architecture's emulated CPUs the one to be used; None: the first."""
    numbers: Mapping[str, int] = field(default_factory=dict)
    """Parameter of a stage's option -> value, of those that were given."""
    load: int = 0
    """Busy processes beside the trials."""
    append: tuple[str, ...] = ()
    """The user's words on both kernels' command lines."""
    guest_image: GuestImage | None = None

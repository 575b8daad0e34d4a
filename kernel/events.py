# SPDX-License-Identifier: GPL-2.0-only
"""What a caller is told while a kernel is made; nothing in this package prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Phase(Enum):
    """The steps from a package name to a cached kernel, in their order."""

    FETCH = "fetch"
    UNPACK = "unpack"
    SNAPSHOT = "snapshot"
    PATCH = "patch"
    CONFIGURE = "configure"
    SEED = "seed"
    COMPILE = "compile"
    PUBLISH = "publish"


@dataclass(frozen=True)
class Started:
    """A phase has begun; `detail` names what it works on."""

    phase: Phase
    detail: str


@dataclass(frozen=True)
class Compiled:
    """Another file is compiled; `expected` and `eta` (s) are None where nothing is known."""

    files: int
    expected: int | None
    elapsed: float
    eta: float | None
    what: str


@dataclass(frozen=True)
class Waiting:
    """Another process (pid, where known) makes the same thing; its result will be used."""

    what: str
    holder: int | None


@dataclass(frozen=True)
class Finished:
    """A kernel is at hand: built just now in `seconds`, or found in the cache."""

    key: str
    release: str
    cached: bool
    seconds: float
    files: int


@dataclass(frozen=True)
class Noted:
    """Something that the user should know and that stops nothing."""

    text: str


Event = Started | Compiled | Waiting | Finished | Noted
Progress = Callable[[Event], None]


def quiet(event: Event) -> None:
    """A progress callback that drops what it is told."""

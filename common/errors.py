# SPDX-License-Identifier: GPL-2.0-only
"""Exit statuses of the command line, and the errors that carry them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class Exit(IntEnum):
    """Exit statuses; scripts and ``git bisect run`` rely on them."""

    PASS = 0
    FAIL = 1
    USAGE = 2
    HARNESS = 3
    SKIP = 4
    CRASHED = 5
    TIMEOUT = 6
    OTHER_CODE = 7
    NO_KERNEL = 125


class StagesError(Exception):
    """One sentence for the user: what is wrong, where, what to do. Ends the program.

    `details` are lines to show below it, such as a compiler's first error.
    """

    exit_status: int = Exit.HARNESS

    def __init__(self, message: str, *, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)


class UsageError(StagesError):
    """What the user asked for cannot be meant: unknown stage, bad value, no such run."""

    exit_status = Exit.USAGE


def first_of(faults: Sequence[str]) -> str:
    """The first of several sentences, and how many there are beside it."""
    return faults[0] + (f" (and {len(faults) - 1} more)" if len(faults) > 1 else "")


class HarnessError(StagesError):
    """The harness or the machine it runs on failed; says nothing about the kernel."""

    exit_status = Exit.HARNESS


class CannotRunHere(StagesError):
    """Nothing can be run here, and that is nobody's fault: a skip, with its reason."""

    exit_status = Exit.SKIP

# SPDX-License-Identifier: GPL-2.0-only
"""`doctor`: a table of what `demo` needs, what is here, and the command that gets the rest."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tabulate import tabulate

from common.arch.known import ARCHITECTURES
from common.errors import Exit
from common.host.requirements import Requirement, requirements

FOUND_WIDTH = 50


def doctor(arguments: argparse.Namespace) -> int:
    """Print what this machine has and lacks; 0 when all that `demo` needs is there, else 3."""
    found = requirements(ARCHITECTURES[arguments.arch])
    print(table(found))
    print()
    print(summary(found))
    return Exit.HARNESS if any(entry.state.stops_demo for entry in found) else Exit.PASS


def table(found: Sequence[Requirement]) -> str:
    """One line a requirement: need, found, state, mend."""
    rows = [[entry.need, entry.found, entry.state.value, entry.mend] for entry in found]
    return tabulate(
        rows,
        headers=["need", "found", "state", "mend"],
        maxcolwidths=[None, FOUND_WIDTH, None, None],  # a command must be copied as it stands
        disable_numparse=True,  # a version is no number: 10.0 must not become 10
    )


def summary(found: Sequence[Requirement]) -> str:
    """The last line: whether `demo` can run, and what to do if not."""
    gaps = [entry for entry in found if entry.state.stops_demo]
    if not gaps:
        return "All that ./kexec-stages demo needs is here, or it gets it by itself."
    lacking = ", ".join(dict.fromkeys(entry.need for entry in gaps))
    return f"Missing for ./kexec-stages demo: {lacking}."

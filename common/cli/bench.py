# SPDX-License-Identifier: GPL-2.0-only
"""The bench verb; the measurements are in bench/."""

from __future__ import annotations

import argparse

from bench.against_luo_kexec_simple import bench as against_luo_kexec_simple
from bench.incoming_boot import incoming_boot
from bench.ways_to_cross import ways_to_cross


def bench(arguments: argparse.Namespace) -> int:
    """Stage 1 against upstream's program, or one of the other measurements."""
    if arguments.incoming_boot:
        return incoming_boot(arguments)
    return ways_to_cross(arguments) if arguments.ways else against_luo_kexec_simple(arguments)

# SPDX-License-Identifier: GPL-2.0-only
"""Verbs about kernels: build, list, prune."""

from __future__ import annotations

import argparse
import time

from tabulate import tabulate

from common.as_run import as_run
from common.errors import Exit
from common.kernel_choice import chosen
from common.kernels import guest_kernel, kernel_pair
from common.stage import load_stage
from kernel import cache


def build(arguments: argparse.Namespace) -> int:
    """Build a stage's two kernels, and its guest's, and print where they are."""
    choice = chosen(arguments)
    stage = load_stage(arguments.stage, arguments.workload)
    stage = as_run(stage, lane=arguments.lane, choice=choice)
    for kernel in (*kernel_pair(stage, choice), guest_kernel(stage, choice)):
        if kernel:
            print(f"{kernel.release}  {kernel.image}")
    return Exit.PASS


def list_cache(_arguments: argparse.Namespace) -> int:
    """Print the kernels of the cache, the last used first."""
    now = time.time()
    rows = [
        [
            entry.key[:12],
            entry.release,
            entry.label,
            entry.source,
            f"{entry.size / 2**20:.0f} MiB",
            _ago(now - entry.created),
            _ago(now - entry.used),
        ]
        for entry in cache.list_entries()
    ]
    headers = ["key", "release", "for", "source", "size", "built", "used"]
    print(tabulate(rows, headers=headers) if rows else "the kernel cache is empty")
    return Exit.PASS


def prune(arguments: argparse.Namespace) -> int:
    """Remove kernels from the cache and print which."""
    pruned = cache.prune(
        keep=0 if arguments.all else arguments.keep, older_than_days=arguments.older_than
    )
    for entry in pruned.removed:
        print(f"removed {entry.key[:12]} {entry.release} ({entry.label})")
    for entry in pruned.in_use:
        print(f"kept {entry.key[:12]} {entry.release}: a run is using it")
    print(f"{len(pruned.removed)} removed, {pruned.freed / 2**20:.0f} MiB freed")
    return Exit.PASS


def _ago(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"

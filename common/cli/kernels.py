# SPDX-License-Identifier: GPL-2.0-only
"""Verbs about kernels: build, list, prune."""

from __future__ import annotations

import argparse
import sys
import time

from tabulate import tabulate

from common.cli.kernel_options import chosen_kernels
from common.cli.options import run_options
from common.errors import Exit, HarnessError, UsageError
from common.host.accel import probe
from common.machine.hypervisor import Hypervisor
from common.run.kernels import kernels_of
from common.run.stage_run import final_name, run_folder
from common.stage.configured import configured
from common.stage.loading import load_stage
from common.stage.series import patches_of
from common.suites.each_patch import steps
from common.suites.kernel_selftests import counts, fallen, run_selftests
from kernel import cache


def build(arguments: argparse.Namespace) -> int:
    """Build a stage's two kernels, and its guest's, and print where they are."""
    choice = chosen_kernels(arguments)
    stage = load_stage(arguments.stage, arguments.workload)
    stage = configured(stage, lane=arguments.lane, choice=choice)
    kernels = kernels_of(stage, choice)
    for kernel in (kernels.outgoing, kernels.incoming, kernels.guest):
        if kernel:
            print(f"{kernel.release}  {kernel.image}")
    return Exit.PASS


def each(arguments: argparse.Namespace) -> int:
    """Build, boot and update with the series up to each of its patches; a line for each.

    Ends at the first that does not: its exit status is that of the build, or of the run. A
    warning of the compiler is a failure.
    """
    choice = chosen_kernels(arguments)
    stage = configured(load_stage(arguments.stage), choice=choice)
    with Hypervisor(arguments.connect) as hypervisor:
        for step in steps(stage, choice, run_options(arguments), hypervisor, first=arguments.first):
            print(
                f"{step.patch.stem}: built in {step.build_seconds:.0f} s; stage 1:"
                f" {step.verdict.status}, {step.verdict.why} ({step.run.name})",
                flush=True,
            )
            for line in step.warnings:
                print(f"  {line}")
            if step.fell:
                return step.verdict.exit or Exit.FAIL
    return Exit.PASS


def selftests(arguments: argparse.Namespace) -> int:
    """The kernel's own tests without a stage's series and with it; 1 where a test has fallen."""
    choice = chosen_kernels(arguments)
    stage = configured(load_stage(arguments.stage), choice=choice)
    if choice.prebuilt or not patches_of(stage):
        raise UsageError("kernels are built without a series and with it: no --image, and a series")
    with Hypervisor(arguments.connect) as hypervisor:
        accelerator = probe(choice.arch, wanted=arguments.accel)
        with run_folder("selftests", hypervisor) as folder:
            before, after = run_selftests(stage, choice, hypervisor, accelerator, folder)
    rows = [[suite, *counts(before[suite]), *counts(after[suite])] for suite in before]
    words = ["ok", "not ok", "skip"]
    headers = ["", *(f"{word} before" for word in words), *(f"{word} after" for word in words)]
    print(tabulate(rows, headers=headers))
    print(f"Consoles: {final_name(folder)}", file=sys.stderr)
    lost = fallen(before, after)
    for line in lost:
        print(line)
    if silent := [suite for suite, tests in before.items() if "ok" not in tests.values()]:
        raise HarnessError(f"no test of {', '.join(silent)} passed, even without the series")
    return Exit.FAIL if lost else Exit.PASS


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

# SPDX-License-Identifier: GPL-2.0-only
"""gate --upstream; what a test has to show stands in common/suites/upstream/result.py."""

from __future__ import annotations

import argparse
import sys

from common.errors import StagesError, UsageError
from common.host.accel import probe
from common.judge.verdict import EXIT_OF, RunStatus
from common.machine.hypervisor import Hypervisor
from common.report import ktap
from common.run.trial import new_run_folder
from common.stage.kernel_choice import chosen
from common.suites.upstream.build import SUITES
from common.suites.upstream.run import run_suites


def gate_upstream(arguments: argparse.Namespace) -> int:
    """The kernel's own live update tests; a skip or a missing option is never a pass."""
    if arguments.until is not None or arguments.baseline or arguments.controls:
        raise UsageError("gate --upstream runs no stage: no --until, --baseline or --controls")
    choice = chosen(arguments)
    if choice.prebuilt:
        raise UsageError("gate --upstream builds kernels and tests from one tree: no --image")
    statuses: set[str] = set()
    with Hypervisor(arguments.connect) as hypervisor:
        folder = new_run_folder("upstream", hypervisor)
        suites = run_suites(choice, hypervisor, probe(wanted=arguments.accel), folder)
        print(f"KTAP version 1\n1..{len(SUITES)}", flush=True)
        for position, (suite, found) in enumerate(suites, start=1):
            statuses |= {"SKIP"} if isinstance(found, StagesError) else {r.status for r in found}
            print(ktap.suite_result(position, suite, found), end="", flush=True)
        folder = folder.rename(folder.with_suffix(""))
    print(f"Consoles: {folder}", file=sys.stderr)
    ranked: tuple[RunStatus, ...] = ("CRASHED", "TIMEOUT", "FAIL", "SKIP", "PASS")
    return EXIT_OF[next(status for status in ranked if status in statuses)]

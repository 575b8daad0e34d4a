# SPDX-License-Identifier: GPL-2.0-only
"""Wall time of `run 1` against upstream's luo_kexec_simple, in turn, on the same kernel.

    ./kexec-stages bench [--runs N]

Upstream's side is what tools/testing/selftests/liveupdate/vmtest.sh does after its own kernel
build: its init and test program, built from the tree under test, in an initramfs, and QEMU
with its arguments. It moves one page; ours moves a running VM and judges it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

from common.errors import Exit, HarnessError
from common.host.qemu_binary import qemu_path
from common.paths import CHECKOUT
from common.report.phase_table import p90
from common.run.kernels import default_tree, kernels_of
from common.stage.kernel_choice import KernelChoice
from common.stage.loading import load_stage
from common.suites.upstream.build import build_initrd
from common.suites.upstream.result import UpstreamTest
from kernel.image.prebuilt import Bootable


def bench(arguments: argparse.Namespace) -> int:
    """Measure both in turn after one uncounted round, print the table; 3 when either fails."""
    kernel = kernels_of(load_stage(1), KernelChoice()).outgoing
    ours: list[float] = []
    upstreams: list[float] = []
    with tempfile.TemporaryDirectory(prefix="kexec-stages-bench-") as name:
        test = UpstreamTest("liveupdate", "luo_kexec_simple", "TEST PASSED")
        initrd = build_initrd(test, default_tree(), kernel, kernel, Path(name))
        for round_number in range(arguments.runs + 1):
            pair = _time_ours(), _time_upstreams(kernel, initrd, Path(name) / "serial")
            print(f"round {round_number}: {pair[0]:.2f} s, {pair[1]:.2f} s", file=sys.stderr)
            if round_number:
                ours.append(pair[0])
                upstreams.append(pair[1])
    rows = [
        [what, len(times), min(times), statistics.median(times), p90(times), max(times)]
        for what, times in (("run 1 --no-controls", ours), ("luo_kexec_simple", upstreams))
    ]
    headers = ["wall time (s)", "n", "min", "median", "p90", "max"]
    print(tabulate(rows, headers=headers, floatfmt=".2f"))
    ratios = sorted(a / b for a, b in zip(ours, upstreams, strict=True))
    print(f"ratio, pair by pair: median {statistics.median(ratios):.2f}", end="")
    print(f" ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    return Exit.PASS


def _time_ours() -> float:
    start = time.monotonic()
    command = [sys.executable, "-m", "common", "run", "1", "--no-controls"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HarnessError(f"run 1 failed: {done.stdout[:400]}{done.stderr[-400:]}")
    return time.monotonic() - start


def _time_upstreams(kernel: Bootable, initrd: Path, serial: Path) -> float:
    command = [str(qemu_path()), "-m", "1G", "-smp", "2", "-no-reboot", "-display", "none"]
    command += [
        "-nodefaults",
        "-accel",
        "tcg",
        "-serial",
        f"file:{serial}",
        "-kernel",
        str(kernel.image),
    ]
    command += ["-initrd", str(initrd)]
    command += ["-append", "console=ttyS0 kho=on liveupdate=on panic=-1"]
    start = time.monotonic()
    subprocess.run(command, timeout=120, check=True, capture_output=True)
    seconds = time.monotonic() - start
    if "TEST PASSED" not in serial.read_text(errors="replace"):
        raise HarnessError("luo_kexec_simple did not pass; see its serial log in a run by hand")
    return seconds

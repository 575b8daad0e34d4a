# SPDX-License-Identifier: GPL-2.0-only
"""What the verdict is if QEMU, or the harness, is stopped for a while at a random moment.

    python -m bench.stopped STAGE [--who qemu|harness] [--seconds S] [--times K] [--load N]

Neither is the kernel's fault, so that no trial may FAIL; and a trial may PASS only where the report
says that the machine stood still. Prints a row for each trial, then how many were what; exit status
1 where a verdict was wrong. Run from the checkout with its environment's python and PYTHONPATH.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from tabulate import tabulate

from common.host.processes.load import busy
from common.judge.verdict import judge_trial
from common.machine.hypervisor import Hypervisor
from common.record.evidence import Trial
from common.record.qemu.process import process_identity
from common.run.options import RunOptions
from common.run.setup import TrialPlan, setup_of
from common.run.trial import run_trial
from common.stage.kernel_choice import KernelChoice
from common.stage.loading import load_stage

# Stops a process, lets it go on. Another process, for the harness cannot let itself go on.
_STOPPER = """
import os, signal, sys, time
pid, wait, seconds = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
time.sleep(wait)
os.kill(pid, signal.SIGSTOP)
time.sleep(seconds)
os.kill(pid, signal.SIGCONT)
"""


@contextmanager
def _stopped(who: str, folder: Path, after: float, seconds: float) -> Iterator[None]:
    """Somebody is stopped so many seconds after the machine was started."""
    ended = threading.Event()

    def wait_and_stop() -> None:
        while not (folder / "qmp.jsonl").exists():
            if ended.wait(0.02):
                return
        pid = os.getpid() if who == "harness" else _qemu(folder)
        command = [sys.executable, "-c", _STOPPER, str(pid), str(after), str(seconds)]
        subprocess.run(command, check=False, stderr=subprocess.DEVNULL)

    thread = threading.Thread(target=wait_and_stop)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _qemu(folder: Path) -> int:
    """The QEMU that is our machine, and no other run's: its trace goes into the trial's folder."""
    trace = str(folder / "qemu-trace.log").encode()
    while True:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes()
            except OSError:
                continue
            pid = int(process.name)
            if trace in words and process_identity(pid):
                return pid
        time.sleep(0.01)


def main() -> int:
    """Measure; 1 where a verdict was wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", type=int)
    parser.add_argument("--who", choices=("qemu", "harness"), default="qemu")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--span", type=float, default=8.0, help="stop within so many seconds")
    parser.add_argument("--load", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    stage, moments = load_stage(arguments.stage), random.Random(arguments.seed)
    rows, wrong = [], 0
    with ExitStack() as stack:
        hypervisor = stack.enter_context(Hypervisor())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kexec-stages-")))
        stack.enter_context(busy(arguments.load, hypervisor.cleanup))
        setup = setup_of(stage, [], KernelChoice(), RunOptions(), hypervisor)
        setup = replace(setup, folder=folder)
        for number in range(arguments.times):
            plan = TrialPlan(f"stopped-{number:02}")
            after = moments.uniform(0.2, arguments.span)
            with _stopped(arguments.who, folder / plan.folder, after, arguments.seconds):
                trial = run_trial(setup, plan)
            verdict = judge_trial(trial, stage)
            good = verdict.status == "DISTURBED" or (
                verdict.status == "PASS" and (verdict.away is not None or _over(trial, after))
            )
            wrong += not good
            row = [number, f"{after:.1f}", verdict.status, "" if good else "WRONG"]
            rows.append([*row, verdict.away or "-", verdict.why])
            print(*rows[-1], file=sys.stderr, flush=True)
    headers = ["trial", "stopped at (s)", "verdict", "", "the report says", "why"]
    print(tabulate(rows, headers=headers, maxcolwidths=[None, None, None, None, 40, 60]))
    print(dict(Counter(row[2] for row in rows)), f"{wrong} wrong")
    return 1 if wrong else 0


def _over(trial: Trial, after: float) -> bool:
    """True where the trial had ended before that."""
    return (trial.setting.ended_ns - trial.setting.started_ns) / 1e9 < after


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())

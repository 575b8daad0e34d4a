# SPDX-License-Identifier: GPL-2.0-only
"""How long the incoming kernel boots, with and without the outgoing kernel's text as memory.

    ./kexec-stages bench --incoming-boot [--stage N]… [--runs N] [--word nokaslr]… [--results FILE]

One trial with the mend and one without, in turn, so that both see the same host. TCG is asked
for its counters four times in each trial, also at the last word before the kexec and at the first
one after it: this costs tens of ms of blackout, and so it is done here only. Nothing is judged.
On a busy host QEMU's CPU time says more than the clock.
With KASLR it is a matter of luck what lies in the old text; with the word nokaslr it is the same
each time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from tabulate import tabulate

from common.checks.live_update import INCOMING
from common.errors import Exit
from common.machine.hypervisor import Hypervisor
from common.record.evidence import Trial
from common.record.qemu import jit
from common.run.options import RunOptions
from common.run.setup import RunSetup, TrialPlan, setup_of
from common.run.trial import run_trial
from common.stage.kernel_choice import KernelChoice
from common.stage.loading import load_stage

_SETUPS: tuple[Literal["keep", "avoid"], ...] = ("keep", "avoid")
_NAMES = {"keep": "as it was", "avoid": "off the old text"}
HEADERS = (
    *("stage", "incoming kernel", "runs", "none", "boot (s): median", "slowest", "ratio"),
    *("CPU (s): median", "slowest", "ratio"),
    *("TBs dropped: least", "median", "most", "asking (ms): median", "most"),
)


def incoming_boot(arguments: argparse.Namespace) -> int:
    """Measure, print a line for each trial and a table in the end."""
    found: list[dict[str, Any]] = []
    with Hypervisor() as hypervisor, tempfile.TemporaryDirectory(prefix="boots-") as name:
        words = tuple(arguments.word)
        benches = [_bench(n, words, hypervisor, Path(name)) for n in arguments.stage or [1]]
        for number in range(arguments.runs):
            for bench in benches:
                for setup in _SETUPS:
                    plan = TrialPlan(f"{bench.stage.number}-{setup}-{number}")
                    trial = run_trial(replace(bench, stale_text=setup), plan)
                    found.append(_boot(trial, bench.folder / plan.name, setup))
                    line = json.dumps(found[-1])
                    print(line, file=sys.stderr, flush=True)
                    if arguments.results:
                        with arguments.results.open("a") as file:
                            file.write(line + "\n")
    print(table(found))
    return Exit.PASS


def _bench(number: int, words: tuple[str, ...], hypervisor: Hypervisor, folder: Path) -> RunSetup:
    stage = load_stage(number)
    stage = replace(stage, cmdline=(*stage.cmdline, *words))
    setup = setup_of(stage, [], KernelChoice(), RunOptions(accelerator="tcg"), hypervisor)
    return replace(
        setup,
        folder=folder,
        jit_words=(jit.FIRST, jit.LEFT, jit.ARRIVED, jit.LAST),
    )


def _boot(trial: Trial, folder: Path, setup: str) -> dict[str, Any]:
    """One line of the results; the folder of a trial without an incoming kernel is kept."""
    side, kexecs = trial.side(INCOMING), trial.console.kexecs
    dropped = jit.invalidations(folder, jit.LEFT, jit.ARRIVED)
    if not side or not kexecs or not dropped:
        kept = Path(tempfile.mkdtemp(prefix="no-incoming-kernel-")) / folder.name
        shutil.copytree(folder, kept)
        ended = f"{trial.setting.ended} {trial.setting.ended_detail}; {kept}"
        return {"stage": trial.setting.stage, "setup": setup, "ended": ended}
    answers = jit.read(folder)
    return {
        "stage": trial.setting.stage,
        "setup": setup,
        "boot_s": round((side.started - kexecs[0]) / 1e9, 4),
        "cpu_s": round(_cpu_s(answers), 2),
        "dropped": dropped[0],
        "dropped_in_all": sum(jit.invalidations(folder)),
        "counts": {a.word: jit.counter(a.said, "TB invalidate count") for a in answers},
        "flushes": jit.counter(answers[-1].said, "TB flush count"),
        "asking_ms": max(round(a.ms, 1) for a in answers),
        "load": Path("/proc/loadavg").read_text().split()[0],
        "ended": trial.setting.ended,
    }


def _cpu_s(answers: Sequence[jit.Entry]) -> float:
    """CPU time of QEMU, all of it, from the last word to the first."""
    at = {answer.word: answer.cpu_s or 0.0 for answer in answers}
    return at[jit.ARRIVED] - at[jit.LEFT]


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """A row for each stage and set-up. Pure."""
    rows = []
    for stage, setup in sorted({(one["stage"], one["setup"]) for one in found}):
        all_of_it = [one for one in found if (one["stage"], one["setup"]) == (stage, setup)]
        these = [one for one in all_of_it if "boot_s" in one]
        if not these:
            continue
        dropped, asking = ([one[key] for one in these] for key in ("dropped", "asking_ms"))
        rows.append(
            [
                *(stage, _NAMES[setup], len(these), len(all_of_it) - len(these)),
                *_spread([one["boot_s"] for one in these]),
                *_spread([one["cpu_s"] for one in these]),
                *(min(dropped), f"{statistics.median(dropped):.0f}", max(dropped)),
                *(f"{statistics.median(asking):.0f}", f"{max(asking):.0f}"),
            ]
        )
    return tabulate(rows, headers=HEADERS, disable_numparse=True)


def _spread(seconds: Sequence[float]) -> tuple[str, str, str]:
    median = statistics.median(seconds)
    return f"{median:.2f}", f"{max(seconds):.2f}", f"{max(seconds) / median:.2f}"

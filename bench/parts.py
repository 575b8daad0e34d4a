# SPDX-License-Identifier: GPL-2.0-only
"""Where the time of a run goes, for one checkout or several in turn.

    python -m bench.parts STAGE CHECKOUT… [--rounds N] [--words WORD…]

Runs `run STAGE --no-controls` of each checkout in turn, after an uncounted round, and prints the
median of each part in ms. All stamps are the host's: of this process around the command, and of the
trial's console and dialogue. WORDs go to the command. Run with the environment's python and
PYTHONPATH, from any of the checkouts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tabulate import tabulate

from common.errors import HarnessError

Rows = list[tuple[int, str]]


@dataclass(frozen=True)
class Mark:
    """Where a part ends: the first line on that side of which `is_it` is true."""

    part: str
    side: int
    is_it: Callable[[str], bool]


def _begins(side: int, part: str, *words: str) -> Mark:
    return Mark(part, side, lambda text: text.startswith(tuple(f"# {word}" for word in words)))


# Of every stage those that it has; a word may be the last of its part or the first of the next.
MARKS = (
    _begins(0, "the guest starts", "guest.memory_mib=", "guest.pid="),
    _begins(0, "refusals", "kho.fdt=", "memory.made="),
    _begins(0, "memory given back", "memory.closed="),
    _begins(0, "small memfds", "at files-written"),
    _begins(0, "long lists, a sweep of the guest", "t.swept="),
    _begins(0, "preserve, load", "await pause"),
    _begins(0, "pause, digest, the host's samples", "await reboot"),
    _begins(0, "last messages, concurrent LUO users", "kexec"),
    _begins(1, "retrieve, compare, restore", "t.resume="),
    _begins(1, "rules, given back, memfds, lists", "t.files="),
    _begins(1, "sweeps of the guest", "await watched"),
    _begins(1, "the host checks all pages, reports", "await end"),
)


def parts(folder: Path, began: int, ended: int) -> dict[str, float]:
    """Part -> ms of the one trial in the run's folder, in their order."""
    trial = json.loads((folder / "main" / "trial.json").read_text())
    console, dialogue = (_rows(folder / "main" / f"{n}.jsonl") for n in ("console", "dialogue"))
    banners = [t for t, text in console if "] Linux version " in text]
    sides = [t for t, text in dialogue if text == "KTAP version 1"]
    marks = [
        (trial["started_ns"], "Python, kernels, libvirt, QEMU's start"),
        (banners[0], "firmware, unpacking"),
        (sides[0], "outgoing kernel"),
        *_seen(dialogue[: _before(dialogue, sides[1])], 0),
        (banners[1], "shutdown, kexec, unpacking"),
        (sides[1], "incoming kernel"),
        *_seen(dialogue[_before(dialogue, sides[1]) :], 1),
        (trial["ended_ns"], "QEMU's end"),
        (ended, "verdict, report"),
    ]
    stamps = [began, *(t for t, _ in marks)]
    return {name: (b - a) / 1e6 for (a, b), (_, name) in zip(pairwise(stamps), marks, strict=True)}


def _rows(path: Path) -> Rows:
    return [(int(t), str(text)) for t, text in map(json.loads, path.read_text().splitlines())]


def _before(rows: Rows, t: int) -> int:
    return sum(stamp < t for stamp, _ in rows)


def _seen(rows: Rows, side: int) -> Iterator[tuple[int, str]]:
    for mark in MARKS:
        found = [t for t, text in rows if mark.side == side and mark.is_it(text)]
        if found:
            yield found[0], mark.part


def main() -> int:
    """Measure, print; a run that does not pass is an error."""
    parser = argparse.ArgumentParser(prog="python -m bench.parts")
    parser.add_argument("stage")
    parser.add_argument("checkouts", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--words", nargs="*", default=[])
    arguments = parser.parse_args()
    found: dict[Path, list[dict[str, float]]] = {path: [] for path in arguments.checkouts}
    for number in range(arguments.rounds + 1):
        for path in arguments.checkouts:
            measured = _measure(path, [arguments.stage, *arguments.words])
            total = sum(measured.values()) / 1000
            load = os.getloadavg()[0]
            print(f"round {number}: {path.name}: {total:.2f} s, load {load:.1f}", file=sys.stderr)
            if number:
                found[path].append(measured)
    print(_table(found))
    return 0


def _measure(checkout: Path, words: Sequence[str]) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="kexec-stages-parts-") as runs:
        command = [str(checkout / "kexec-stages"), "run", *words, "--no-controls"]
        environment = os.environ | {"KEXEC_STAGES_RUNS": runs}
        began = time.monotonic_ns()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        ended = time.monotonic_ns()
        if done.returncode:
            raise HarnessError(f"{checkout}: {done.stdout[:400]}{done.stderr[-400:]}")
        return parts(Path(runs) / "latest", began, ended)


def _table(found: dict[Path, list[dict[str, float]]]) -> str:
    names = list(dict.fromkeys(name for runs in found.values() for run in runs for name in run))
    rows: list[list[object]] = [
        [name, *(_median([run[name] for run in runs if name in run]) for runs in found.values())]
        for name in names
    ]
    rows.append(["in all", *(_median([sum(run.values()) for run in r]) for r in found.values())])
    return tabulate(rows, headers=["part (ms)", *(p.name for p in found)], tablefmt="github")


def _median(times: Sequence[float]) -> int | None:
    return round(statistics.median(times)) if times else None


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: GPL-2.0-only
"""The same QEMU and guest by several ways across a change of the kernel, in turn, in one run.

    ./kexec-stages bench --ways [--runs N] [--sizes MIB,MIB]

a  live update  RAM in a memfd that LUO preserves, QEMU's state in a second one
b  disk         QEMU saves RAM and all to a file on a virtio disk; kexec; QEMU loads it
d  cold boot    as a, but the guest is booted anew
e  in place     QEMU saves and another QEMU loads, in the same kernel: the floor

The blackout goes from QEMU's event STOP to the guest's first beat after it, by the host's
clock, so that a guest that boots is measured like one that goes on. The digest of all RAM
before the kexec, which is only proof, is in a and d; it is taken off.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree as ET

from tabulate import tabulate

from common.accel import probe
from common.checks import INCOMING, OUTGOING, outcome
from common.controls import reason
from common.errors import Exit, HarnessError
from common.hypervisor import Hypervisor
from common.kernel_choice import KernelChoice
from common.kernels import guest_kernel, kernel_pair
from common.qemu_image import mke2fs
from common.record import Trial
from common.runner import Bench, Plan, check_size, run_trial
from common.stage import Control, Stage, load_stage
from common.timing import tsc_ms


@dataclass(frozen=True)
class Way:
    """A way to cross: its letter in the table, its name, and what the workload calls it."""

    letter: str
    name: str
    control: str | None


WAYS = (
    Way("a", "live update", None),
    Way("b", "disk", "disk"),
    Way("d", "cold boot", "cold-guest"),
    Way("e", "in place", "in-place"),
)


@dataclass(frozen=True)
class Crossing:
    """One guest that crossed."""

    blackout_ms: float
    bytes_moved: int


def ways_to_cross(arguments: argparse.Namespace) -> int:
    """Measure every way at every size, in turn; prints a table and the slopes."""
    stage = load_stage(1, "qemu")
    sizes = [int(size) for size in arguments.sizes.split(",")]
    found: dict[tuple[int, str], list[Crossing]] = {}
    with Hypervisor() as hypervisor, tempfile.TemporaryDirectory(prefix="ways-") as name:
        for size in sizes:
            bench = _bench(stage, size, hypervisor, Path(name))
            for number in range(arguments.runs):
                for way in WAYS:
                    crossing = _cross(bench, way, number)
                    found.setdefault((size, way.letter), []).append(crossing)
                    print(
                        f"{size} MiB, {way.name}: {crossing.blackout_ms:.0f} ms,"
                        f" {crossing.bytes_moved} bytes",
                        file=sys.stderr,
                    )
    print(_table(found, sizes))
    print(f"\n{_slopes(found, sizes)}")
    return Exit.PASS


def _bench(stage: Stage, size: int, hypervisor: Hypervisor, folder: Path) -> Bench:
    choice = KernelChoice()
    outgoing, incoming = kernel_pair(stage, choice)
    options = {"guest_memory": size, "vcpus": 1}
    check_size(stage, options)
    return Bench(
        stage=stage,
        outgoing=outgoing,
        incoming=incoming,
        guest=guest_kernel(stage, choice),
        accelerator=probe(),
        hypervisor=hypervisor,
        options=options,
        folder=folder,
    )


def _cross(bench: Bench, way: Way, number: int) -> Crossing:
    size = bench.options["guest_memory"]
    plan = Plan(f"{way.letter}-{size}-{number}", _control(bench.stage, way.control))
    if way.control == "disk":
        disk = bench.folder / f"{plan.name}.ext2"
        _make_disk(disk, mib=size + size // 16 + 64)
        devices = (*bench.stage.devices(bench.options), _disk(disk))
        stage = replace(bench.stage, devices=lambda _options: devices)
        trial = run_trial(replace(bench, stage=stage), plan)
        disk.unlink()
    else:
        trial = run_trial(bench, plan)
    return _crossing(trial)


def _control(stage: Stage, name: str | None) -> Control | None:
    """A trial of that name; nothing judges it."""
    if name is None or name in {control.name for control in stage.controls}:
        return stage.control(name) if name else None
    nothing = reason(lambda _trial: outcome(True, expected="", seen="", evidence=""))
    return Control(name=name, what=name, breaks=frozenset(), reason=nothing)


def _make_disk(path: Path, *, mib: int) -> None:
    command = [mke2fs(), "-q", "-t", "ext2", "-b", "4096", "-m", "0", str(path), f"{mib}M"]
    subprocess.run(command, check=True, capture_output=True)


def _disk(path: Path) -> ET.Element:
    disk = ET.Element("disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type="raw")
    ET.SubElement(disk, "source", file=str(path))
    ET.SubElement(disk, "target", dev="vdb", bus="virtio")
    address = {"type": "pci", "domain": "0x0000", "bus": "0x00", "slot": "0x06", "function": "0x0"}
    ET.SubElement(disk, "address", address)
    return disk


def _crossing(trial: Trial) -> Crossing:
    """Raises HarnessError when the guest did not come across."""
    after, qemu = trial.witness["guest"]["after"], trial.witness["qemu"]
    stopped = qemu.get(OUTGOING, {}).get("event.stop")
    side = trial.side(OUTGOING)
    if after is None or stopped is None or side is None:
        failed = {name: one.get("failed") for name, one in qemu.items()}
        raise HarnessError(
            f"{trial.setting.name}: the guest did not come across: {trial.setting.ended}"
            f" {trial.setting.ended_detail} {failed}"
        )
    proof = tsc_ms(side, "saved", "digested") or 0.0
    moved = 0 if qemu[INCOMING].get("migrate-incoming") is None else side.number("state.bytes")
    return Crossing((after["t"] - stopped) / 1e6 - proof, moved or 0)


def _table(found: Mapping[tuple[int, str], Sequence[Crossing]], sizes: Sequence[int]) -> str:
    headers = ["guest", "way", "n", "min", "median", "max (ms)", "to a", "bytes moved"]
    return tabulate(list(_rows(found, sizes)), headers=headers, floatfmt=("", "", "", *[".0f"] * 3))


def _rows(
    found: Mapping[tuple[int, str], Sequence[Crossing]], sizes: Sequence[int]
) -> Iterator[list[object]]:
    for size in sizes:
        first = statistics.median(c.blackout_ms for c in found[size, "a"])
        for way in WAYS:
            crossings = found[size, way.letter]
            times = [crossing.blackout_ms for crossing in crossings]
            median = statistics.median(times)
            yield [
                f"{size} MiB",
                f"{way.letter} {way.name}",
                len(times),
                min(times),
                median,
                max(times),
                f"{median / first:.2f}",
                statistics.median_high([crossing.bytes_moved for crossing in crossings]),
            ]


def _slopes(found: Mapping[tuple[int, str], Sequence[Crossing]], sizes: Sequence[int]) -> str:
    """What a GiB more costs, from the medians at the smallest and at the largest guest."""
    small, large = min(sizes), max(sizes)
    if small == large:
        return "one size: no slope"
    rows = []
    for way in WAYS:
        medians = [
            statistics.median(c.blackout_ms for c in found[size, way.letter])
            for size in (small, large)
        ]
        slope = (medians[1] - medians[0]) / ((large - small) / 1024)
        rows.append([f"{way.letter} {way.name}", slope])
    return tabulate(rows, headers=["way", f"ms per GiB, {small} to {large} MiB"], floatfmt=".0f")

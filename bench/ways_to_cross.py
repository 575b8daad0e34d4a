# SPDX-License-Identifier: GPL-2.0-only
"""The same QEMU and guest taken across a kernel change in several ways, in turn, in one run.

    ./kexec-stages bench --ways [--runs N] [--sizes MIB,MIB] [--results FILE] [--svg FILE]

a  live update   RAM in a memfd that LUO preserves, QEMU's state in a second one; large folios
a4               the same with folios of 4 KiB
b  disk          QEMU saves RAM and all to a file on a virtio disk; kexec; QEMU loads it
c  PMEM          RAM in a file of an ext4 with DAX on emulated PMEM (memmap=); its state, too
d  cold boot     as a, but the guest is booted anew
e  in place      QEMU saves and another QEMU loads, in the same kernel: the floor

The blackout goes from QEMU's event STOP to the guest's first beat after it, by the host's
clock, so that a guest that boots is measured like one that goes on. Nothing is digested and
the guest does not go round its memory: that is for `run 1 --workload qemu`. It has filled it,
and goes on verifying it; a guest that finds a fault, or was booted, ends the measurement.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bench.ways_table import Crossing, read_crossings, slopes, table, ways_svg
from common.checks.controls import reason
from common.checks.live_update import INCOMING, OUTGOING, outcome
from common.checks.model import Control
from common.errors import Exit, HarnessError, UsageError
from common.guest.evidence import guest_of, qemu_of
from common.host.qemu_binary import qemu_path
from common.host.qemu_image import mke2fs
from common.machine.hypervisor import Hypervisor
from common.record.evidence import Trial
from common.run.guest_image import second_disk
from common.run.options import RunOptions
from common.run.setup import RunSetup, TrialPlan, check_size, setup_of
from common.run.trial import run_trial
from common.stage.declaration import Size, Stage
from common.stage.kernel_choice import KernelChoice
from common.stage.loading import load_stage
from common.stage.run_config import RunConfig

CONFIG = Path(__file__).with_name("ways.config")

# q35 has all RAM below this in one piece; of more, what is above 2 GiB lies from 4 GiB on.
_LOW_MIB = 0xB000_0000 >> 20
_SPLIT_MIB, _HIGH_MIB = 2048, 4096


@dataclass(frozen=True)
class Way:
    """A way to cross; `prepare` gives the stage what it needs on this way, in a folder."""

    letter: str
    name: str
    control: str
    words: tuple[str, ...] = ()
    prepare: Callable[[Stage, int, Path], Stage] = lambda stage, _size, _folder: stage
    booted: bool = False
    new_ram: bool = False


def _with_disk(stage: Stage, size: int, folder: Path) -> Stage:
    """An empty disk that takes all of RAM."""
    path = folder / "disk.ext2"
    path.unlink(missing_ok=True)
    command = [mke2fs(), "-q", "-t", "ext2", "-b", "4096", "-m", "0", str(path)]
    subprocess.run([*command, f"{size + size // 16 + 64}M"], check=True, capture_output=True)
    devices = stage.devices
    return replace(stage, devices=lambda options: (*devices(options), second_disk(path)))


def _with_pmem(stage: Stage, size: int, _folder: Path) -> Stage:
    """RAM that the kernel is told to take for PMEM, beside what it needs itself."""
    pmem = -(-(size + size // 16 + 64) // 128) * 128
    machine, start = _HIGH_MIB // 4 + pmem + 256, _HIGH_MIB // 4
    if machine > _LOW_MIB:
        machine, start = _SPLIT_MIB + pmem, _HIGH_MIB
    cmdline = (*stage.cmdline, f"memmap={pmem}M!{start}M")
    need = Size(machine, f"PMEM {pmem} + the rest {machine - pmem} MiB")
    return replace(stage, cmdline=cmdline, size=lambda _options: need)


WAYS = (
    Way("a", "live update", "live-update"),
    Way("a4", "live update, 4 KiB", "small-folios", words=("stage.large_pages=0",)),
    Way("b", "disk", "disk", prepare=_with_disk, new_ram=True),
    Way("c", "PMEM", "pmem", prepare=_with_pmem),
    Way("d", "cold boot", "cold-guest", booted=True),
    Way("e", "in place", "in-place"),
)


def ways_to_cross(arguments: argparse.Namespace) -> int:
    """Measure every way at every size, in turn; prints a table and the slopes.

    What `--results` names already is not measured again, so that a measurement of hours can be
    taken up where it ended. Raises UsageError when it is of another machine or other kernels.
    """
    sizes = sorted({_size(word) for word in arguments.sizes.split(",")})
    stage = replace(load_stage(1, "qemu"), config=RunConfig(extra_fragments=(CONFIG,)))
    results: Path | None = arguments.results
    with Hypervisor() as hypervisor, tempfile.TemporaryDirectory(prefix="ways-") as name:
        benches = {size: _bench(stage, size, hypervisor, Path(name)) for size in sizes}
        setup = _setup(benches[sizes[0]])
        found = read_crossings(results, setup) if results else []
        for size, bench in benches.items():
            for number in range(arguments.runs):
                for way in WAYS:
                    if any(one.is_(size, way.letter, number) for one in found):
                        continue
                    crossing = _cross(bench, way, number, setup)
                    found.append(crossing)
                    if results:
                        with results.open("a") as file:
                            file.write(crossing.model_dump_json() + "\n")
                    print(f"{crossing}", file=sys.stderr)
    found = [one for one in found if one.size_mib in sizes]
    print(f"{setup}\n\n{table(found)}\n\n{slopes(found)}")
    if arguments.svg:
        arguments.svg.write_text(ways_svg(found, title=f"QEMU's guest across a kexec: {setup}"))
    return Exit.PASS


def _size(word: str) -> int:
    if not word.isdecimal() or not 64 <= int(word) <= 1 << 20 or int(word) % 2:
        raise UsageError(f"--sizes: {word!r} is not an even number of MiB, at least 64")
    return int(word)


def _bench(stage: Stage, size: int, hypervisor: Hypervisor, folder: Path) -> RunSetup:
    options = {"guest_memory": size, "vcpus": 1}
    for way in WAYS:
        needed = replace(stage, size=_with_pmem(stage, size, folder).size)
        check_size(needed if way.control == "pmem" else stage, options)
    setup = setup_of(stage, [], KernelChoice(), RunOptions(numbers=options), hypervisor)
    return replace(setup, folder=folder)


def _setup(bench: RunSetup) -> str:
    """What has to be equal for two measurements to be compared."""
    versions = bench.hypervisor.versions(qemu_path())
    return (
        f"{bench.kernels.outgoing.release} to {bench.kernels.incoming.release}"
        f" ({bench.kernels.outgoing.build_id[:12]}, {bench.kernels.incoming.build_id[:12]}),"
        f" QEMU {versions['qemu']}, {bench.accelerator.name}"
    )


def _cross(bench: RunSetup, way: Way, number: int, setup: str) -> Crossing:
    size = bench.options["guest_memory"]
    stage = way.prepare(bench.stage, size, bench.folder)
    # Nothing judges this trial, so that nothing has to hold.
    nothing = reason(lambda _trial: outcome(True, expected="", seen="", evidence=""))
    control = Control(
        name=way.control,
        what=way.name,
        breaks=frozenset(),
        reason=nothing,
        cmdline=lambda words: (*words, "stage.proof=0", *way.words),
    )
    trial = run_trial(
        replace(bench, stage=stage), TrialPlan(f"{way.letter}-{size}-{number}", control)
    )
    blackout_ms, bytes_moved, extra_kb = _crossed(trial, way)
    return Crossing(
        setup=setup,
        way=way.letter,
        name=way.name,
        size_mib=size,
        number=number,
        blackout_ms=blackout_ms,
        bytes_moved=bytes_moved,
        extra_kb=extra_kb,
    )


def _crossed(trial: Trial, way: Way) -> tuple[float, int, int]:
    """Blackout in ms, bytes moved, memory in KiB that it took beside the guest's RAM.

    Raises HarnessError when the guest did not come across unharmed.
    """
    guest = guest_of(trial)
    before, after = guest.before, guest.after
    stopped = qemu_of(trial, OUTGOING).events.get("stop")
    if not (before and after and stopped) or guest.faults or trial.setting.ended != "done":
        failed = {name: qemu_of(trial, name).failed for name in (OUTGOING, INCOMING)}
        raise HarnessError(
            f"{trial.setting.name}: the guest did not come across: {trial.setting.ended}"
            f" {trial.setting.ended_detail} {failed} {guest.faults}"
        )
    if (before.values["boot_id"] != after.values["boot_id"]) != way.booted:
        raise HarnessError(f"{trial.setting.name}: the guest was {'not ' * way.booted}booted")
    facts = {**_facts(trial, INCOMING), **_facts(trial, OUTGOING)}
    resuming = int(facts["mem.fell_kb.resuming"])
    if way.new_ram:
        resuming -= int(trial.setting.options["guest_memory"]) << 10
    moved = 0 if way.booted else int(facts["state.bytes"])
    extra = max(0, int(facts["mem.fell_kb.saving"]), resuming)
    return (after.t - stopped) / 1e6, moved, extra


def _facts(trial: Trial, name: str) -> dict[str, str]:
    side = trial.side(name)
    return dict(side.facts) if side else {}

# SPDX-License-Identifier: GPL-2.0-only
"""The evidence record: what one trial left behind, as one typed value.

A *trial* is one machine from start to end: the main run, a control, or a repeat. Its
folder holds raw files; `collect` turns them into a Trial and nothing else enters a verdict:

    trial.json       what the harness alone knows (Setting), written when the trial ends
    console.jsonl    [host ns, text] for each line of the kernels' console (.log: raw bytes)
    dialogue.jsonl   the same for the workload's line
    qmp.jsonl        QMP events as they came
    host.jsonl, away-*.jsonl    what the host did meanwhile (common/host_log.py)
    qemu-trace.log   QEMU's trace events (stages look into it themselves)
    jit.jsonl        under TCG: its counters at two words of the workload (common/jit.py)
    cpu-samples.jsonl  registers, page tables and build-id notes at points of the trial, read from
                     outside (common/cpu_samples.py)
    last-look.json   of a kernel that died before its console, or of a machine that fell silent
                     (common/last_look.py); log-from-ram.txt is its log alone
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from common import console, dialogue, jit, qemu_trace
from common.blindness import TRACE, blind
from common.console import Console
from common.cpu_samples import Sample, read_samples
from common.dialogue import Side, Stored
from common.errors import UsageError
from common.host_log import HostLog, read_host
from common.kernel_layout import KernelLayout
from common.last_look import LastLook, read_last_look
from common.machine_identity import QemuProcess
from common.qemu_fault import read_qemu_fault
from common.qemu_trace import TraceEvent, TraceLog
from common.serial_line import read_stamped

SCHEMA = 2
"""Of what a record holds. A run of another one is for the version of this program that made it."""
SUMS = "SHA256SUMS"

Ended = Literal["done", "bail", "crashed", "timeout", "gone", "rebooted", "interrupted"]


class KernelFacts(Stored):
    """One of the two kernels, as it was built. Of a prebuilt one the image is known, and what
    IKCONFIG left in it; without that `config_sha256` is None."""

    release: str
    build_id: str
    key: str
    source: str
    image_sha256: str
    config_sha256: str | None
    patches: tuple[str, ...] = ()
    prebuilt: bool = False
    layout: KernelLayout | None = None
    """Where note, banner and text stand in its image; None where its ELF file does not tell."""

    @property
    def config(self) -> str:
        """The first digits of the configuration's digest, or that there is none to be had."""
        return self.config_sha256[:12] if self.config_sha256 else "unknown"


class Host(Stored):
    """Where the trial ran. Accelerator and its reason belong to every figure."""

    cpu: str
    cpus: int
    memory_mib: int
    kernel: str
    system: str
    accelerator: str
    accelerator_reason: str
    preferred: bool = False
    """QEMU and the host's witnesses came before other processes (common/precedence.py)."""
    versions: dict[str, str]
    emulator: str | None = None
    """The QEMU that ran the machine: its path."""


class Crash(Stored):
    """How a kernel died, as far as it said so; decoded where it was built."""

    phase: str
    """What the trial was in: "after 'pause'", "incoming kernel"."""
    kernel: str
    """Release of the kernel that died."""
    lines: tuple[str, ...]
    """The console lines that matter first, at most ten."""
    stack: tuple[str, ...]
    """The call trace, by the kernel's scripts/decode_stacktrace.sh."""
    decoded_by: str
    """With what it was decoded, or why it was not."""


class Setting(Stored):
    """What the harness alone knows of a trial."""

    schema_version: int = SCHEMA
    stage: int
    name: str
    """Unique within the run: "main", "control-NAME", "repeat-07"; a further attempt at a disturbed
    trial is "main-attempt-2"."""
    attempt: int = 1
    control: str | None
    options: dict[str, str]
    workload: Literal["vmm", "qemu"] = "vmm"
    lane: Literal["default", "debug", "server"] = "default"
    series: str = "ours"
    """What was applied to the kernels' source: "ours", "none", or a folder of patches."""
    one_kernel: bool = False
    """The user gave one image for both sides."""
    chain: int = 1
    """Updates in this machine, one after the other; see common/chain.py."""
    append: tuple[str, ...] = ()
    """The user's own words on both kernels' command lines; see common/append.py."""
    load: int = 0
    """Busy processes that the harness ran beside the trial; see common/load.py."""
    nonce: str
    host: Host
    outgoing: KernelFacts
    incoming: KernelFacts
    guest: KernelFacts | None = None
    """The kernel of the guest, where the guest is a Linux."""
    guest_image: dict[str, str] | None = None
    """Name -> sha256 of the files that the user gave as the guest."""
    cmdline: str
    argv: tuple[str, ...]
    clock_offset_ns: int
    """CLOCK_REALTIME minus CLOCK_MONOTONIC, to line up QEMU's trace stamps."""
    started_ns: int
    ended_ns: int
    ended: Ended
    ended_detail: str
    crash: Crash | None = None
    process_at_start: QemuProcess
    process_at_end: QemuProcess | None

    @property
    def plan(self) -> str:
        """The name that all attempts at a trial share."""
        return self.name.removesuffix(f"-attempt-{self.attempt}")


class QmpEvent(Stored):
    """A QMP event; `t` is the host's CLOCK_MONOTONIC in ns when it reached the harness."""

    t: int
    qemu_time: float
    event: str
    details: dict[str, Any]


class Trial(Stored):
    """Everything a verdict may look at."""

    setting: Setting
    host: HostLog | None = None
    """What the host did meanwhile; None where that was not measured."""
    qemu_fault: str | None = None
    """What shows that QEMU itself failed, and not the kernel; see common/qemu_fault.py."""
    console: Console
    sides: tuple[Side, ...]
    qmp: tuple[QmpEvent, ...]
    witness: dict[str, Any]
    """What a stage reads from its own raw files (traces, frames); see Stage.witness.

    "blind", where it is there, says in a sentence why these are no evidence.
    """
    update: int = 1
    """Which update of its machine is looked at: 1 but in the views of common/chain.py."""
    tb_invalidations: tuple[int, ...] = ()
    """Translations that QEMU's TCG dropped, for each update, from the outgoing side's first word
    to the incoming side's last; empty where that was not measured."""
    samples: tuple[Sample, ...] = ()
    """What the CPUs' page tables lead to, seen from outside; see common/cpu_samples.py."""
    last_look: LastLook | None = None
    """What was seen of a machine that fell silent; None where none had to be looked at."""

    def side(self, name: str) -> Side | None:
        """The first side of that name ("outgoing" or "incoming"), None when it never spoke."""
        return next((side for side in self.sides if side.name == name), None)

    def resets(self) -> tuple[QmpEvent, ...]:
        """Platform resets during the machine's life, as QEMU reported them."""
        return tuple(event for event in self.qmp if event.event == "RESET")


class Run(Stored):
    """A run folder: trials of one stage, with who made them."""

    schema_version: int = SCHEMA
    stage: int
    tool: str
    commit: str
    started: str
    command: tuple[str, ...]
    trials: tuple[Trial, ...]

    def trial(self, name: str) -> Trial:
        """The trial of that name. Raises KeyError."""
        return {trial.setting.name: trial for trial in self.trials}[name]


@dataclass(frozen=True)
class RawTrial:
    """A trial's folder with what every reader of it asks for, read once."""

    folder: Path
    setting: Setting
    console: Console
    sides: tuple[Side, ...]
    host: HostLog | None

    @cached_property
    def trace_log(self) -> TraceLog:
        """QEMU's trace log. Raises OSError."""
        asked, offset = qemu_trace.asked_of(self.setting.argv), self.setting.clock_offset_ns
        with (self.folder / TRACE).open(errors="replace") as lines:
            return qemu_trace.read(lines, asked=asked, clock_offset_ns=offset)

    @property
    def trace(self) -> tuple[TraceEvent, ...]:
        """What of it could be read. Raises OSError."""
        return self.trace_log.events


Witness = Callable[[RawTrial], dict[str, Any]]


def collect(folder: Path, *, witness: Witness) -> Trial:
    """The trial of a folder, from its raw files; `witness` reads the stage's own.

    Raises UsageError on missing or damaged ones.
    """
    try:
        raw = RawTrial(
            folder=folder,
            setting=Setting.model_validate_json((folder / "trial.json").read_text()),
            console=console.parse(read_stamped(folder / "console.jsonl")),
            sides=dialogue.parse(read_stamped(folder / "dialogue.jsonl")),
            host=read_host(folder),
        )
        found = witness(raw)
        if said := blind(raw, found):
            found["blind"] = said
        return Trial(
            setting=raw.setting,
            host=raw.host,
            qemu_fault=read_qemu_fault(folder),
            console=raw.console,
            sides=raw.sides,
            qmp=tuple(
                QmpEvent.model_validate_json(line)
                for line in (folder / "qmp.jsonl").read_text().splitlines()
            ),
            witness=found,
            tb_invalidations=jit.invalidations(folder),
            samples=read_samples(folder),
            last_look=read_last_look(folder),
        )
    except FileNotFoundError as error:
        raise UsageError(
            f"{folder}: half a trial, {Path(error.filename).name} is missing"
            " (was the harness killed?); run it again"
        ) from None
    except (ValidationError, ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{folder}: damaged trial: {first}; run it again") from None


def seal(folder: Path) -> None:
    """Write SHA256SUMS over every file below `folder` (sha256sum -c reads it)."""
    (folder / SUMS).write_text(_sums(folder))


def _sums(folder: Path) -> str:
    names = sorted(str(path.relative_to(folder)) for path in _files(folder))
    return "".join(f"{sha256(folder / name)}  {name}\n" for name in names)


def seal_entries(folder: Path) -> dict[str, str]:
    """What SHA256SUMS says: file -> digest. Raises UsageError when it is missing or damaged."""
    try:
        lines = (folder / SUMS).read_text().splitlines()
        return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError):
        raise UsageError(f"{folder}: {SUMS} is missing or damaged") from None


def seal_breaches(folder: Path) -> list[str]:
    """What no longer agrees with SHA256SUMS, a sentence each; empty when all is as sealed."""
    try:
        sealed = seal_entries(folder)
    except UsageError:
        return [f"{SUMS} is missing or damaged"]
    present = {str(path.relative_to(folder)) for path in _files(folder)}
    breaches = [f"{name} is missing" for name in sorted(sealed.keys() - present)]
    breaches += [f"{name} was added" for name in sorted(present - sealed.keys())]
    breaches += [
        f"{name} was edited"
        for name in sorted(sealed.keys() & present)
        if sha256(folder / name) != sealed[name]
    ]
    if not breaches and (folder / SUMS).read_bytes() != _sums(folder).encode():
        breaches = [f"{SUMS} was edited"]
    return breaches


def sha256(path: Path) -> str:
    """The file's SHA-256, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != SUMS]


def schema_text() -> str:
    """The published JSON Schema of a run's record."""
    return json.dumps(Run.model_json_schema(), indent=2, sort_keys=True) + "\n"

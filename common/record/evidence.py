# SPDX-License-Identifier: GPL-2.0-only
"""The evidence record: what one trial left behind, as one typed value.

A *trial* is one machine from start to end: the main run, a control, or a repeat. Its
folder holds raw files; `collect` turns them into a Trial and nothing else enters a verdict.
Which files there are stands in common/record/trial_files.py:

    trial.json       what the harness alone knows (Setting), written when the trial has ended
    console.jsonl    [host ns, text] for each line of the kernels' console (.log: raw bytes)
    dialogue.jsonl   the same for the workload's line
    qmp.jsonl        QMP events as they came
    host.jsonl, away-*.jsonl    what the host did meanwhile (common/record/host/log.py)
    qemu-trace.log   QEMU's trace events (stages look into it themselves)
    jit.jsonl        under TCG: its counters at two words of the workload
                     (common/record/qemu/jit.py)
    cpu-samples.jsonl  registers, page tables and build-id notes at points of the trial, read from
                     outside (common/record/cpus/samples.py)
    last-look.json   of a kernel that died before its console, or of a machine that fell silent
                     (common/record/cpus/last_look.py); log-from-ram.txt is its log alone

Beside the trials lies run.json (Made), written before the first of them: what made the run, and
which trials it was to have. A trial's nonce, which both kernels, the workload and the guest are
told, follows from it, so that neither it nor a trial can be another run's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from common.errors import UsageError
from common.record import console, dialogue
from common.record.blindness import TRACE, blind
from common.record.console import Console
from common.record.cpus.kernel_layout import KernelLayout
from common.record.cpus.last_look import LastLook, read_last_look
from common.record.cpus.samples import Sample, read_samples
from common.record.dialogue import Line, Side, Stored
from common.record.host.away import Stretch, read_away
from common.record.host.log import HostLog, read_host
from common.record.qemu import jit
from common.record.qemu import trace as qemu_trace
from common.record.qemu.fault import read_qemu_fault
from common.record.qemu.process import QemuProcess
from common.record.qemu.trace import TraceEvent, TraceLog
from common.record.stored_file import (
    Count,
    Hex,
    Name,
    Stamp,
    Strict,
    Text,
    first_fault,
    in_order,
    read_bytes,
    read_rows,
    read_stamped,
)

SCHEMA: Final = 3
"""Of what a record holds. A run of another one is for the version of this program that made it."""
ATTEMPTS = 3
"""So often a trial is run whose host, or QEMU, disturbs it; each attempt stays in the record."""
LONGEST = 16
"""So many updates a chain may have."""
_SLACK_NS = 1_000_000_000
Nonce = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Word = Annotated[str, Field(pattern=r"^[!-~]*$", max_length=200)]

Ended = Literal["done", "bail", "crashed", "timeout", "gone", "rebooted", "interrupted"]


class KernelFacts(Strict):
    """One of the two kernels, as it was built. Of a prebuilt one the image is known, and what
    IKCONFIG left in it; without that `config_sha256` is None."""

    release: Word
    build_id: Hex
    key: Text
    source: Text
    image_sha256: Hex
    config_sha256: Hex | None
    patches: tuple[Text, ...] = ()
    prebuilt: bool = False
    layout: KernelLayout | None = None
    """Where note, banner and text stand in its image; None where its ELF file does not tell."""

    @property
    def config(self) -> str:
        """The first digits of the configuration's digest, or that there is none to be had."""
        return self.config_sha256[:12] if self.config_sha256 else "unknown"


class Host(Strict):
    """Where the trial ran. Accelerator and its reason belong to every figure."""

    cpu: Text
    cpus: Count
    memory_mib: Count
    kernel: Text
    system: Text
    accelerator: Name
    accelerator_reason: Text
    preferred: bool = False
    """QEMU and the host's witnesses came before other processes; see
    common/host/processes/precedence.py."""
    versions: dict[Name, Text]
    emulator: Text | None = None
    """The QEMU that ran the machine: its path."""


class Crash(Strict):
    """How a kernel died, as far as it said so; decoded where it was built."""

    phase: Text
    """What the trial was in: "after 'pause'", "incoming kernel"."""
    kernel: Word
    """Release of the kernel that died."""
    lines: tuple[Text, ...]
    """The console lines that matter first, at most ten."""
    stack: tuple[Text, ...]
    """The call trace, by the kernel's scripts/decode_stacktrace.sh."""
    decoded_by: Text
    """With what it was decoded, or why it was not."""


class InnerQemu(Stored):
    """The QEMU that runs in the machine, as it is packaged."""

    version: Text
    sha256: Hex
    """Of the program."""
    packages_sha256: Hex | None = None
    """Of the list of the packages' own digests, where the QEMU was unpacked for us."""


class Setting(Strict):
    """What the harness alone knows of a trial."""

    schema_version: Literal[3] = SCHEMA
    stage: Annotated[int, Field(ge=1, le=99)]
    name: Name
    """Unique within the run: "main", "control-NAME", "repeat-07"; a further attempt at a disturbed
    trial is "main-attempt-2"."""
    attempt: Annotated[int, Field(ge=1, le=ATTEMPTS)] = 1
    control: Name | None
    options: dict[Name, Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]]
    workload: Literal["vmm", "qemu"] = "vmm"
    lane: Literal["default", "debug", "server"] = "default"
    series: Text = "ours"
    """What was applied to the kernels' source: "ours", "none", or a folder of patches."""
    one_kernel: bool = False
    """The user gave one image for both sides."""
    chain: Annotated[int, Field(ge=1, le=LONGEST)] = 1
    """Updates in this machine, one after the other; see common/stage/chain.py."""
    append: tuple[Text, ...] = ()
    """The user's own words on both kernels' command lines; see common/stage/append.py."""
    load: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Busy processes that the harness ran beside the trial; see common/host/processes/load.py."""
    nonce: Nonce
    host: Host
    outgoing: KernelFacts
    incoming: KernelFacts
    guest: KernelFacts | None = None
    """The kernel of the guest, where the guest is a Linux."""
    guest_image: dict[Text, Hex] | None = None
    """Name -> sha256 of the files that the user gave as the guest."""
    inner_qemu: InnerQemu | None = None
    cmdline: Text
    argv: Annotated[tuple[Text, ...], Field(min_length=1, max_length=10_000)]
    clock_offset_ns: Annotated[int, Field(ge=-(1 << 62), lt=1 << 62)]
    """CLOCK_REALTIME minus CLOCK_MONOTONIC, to line up QEMU's trace stamps."""
    started_ns: Stamp
    ended_ns: Stamp
    """When all of the machine was gone; every stamp of the trial is between the two."""
    ended: Ended
    ended_detail: Text
    crash: Crash | None = None
    process_at_start: QemuProcess
    process_at_end: QemuProcess | None

    @model_validator(mode="after")
    def _of_one_machine(self) -> Setting:
        if not self.started_ns < self.ended_ns:
            raise ValueError("ended_ns is not after started_ns")
        if not any(f"guest=stages-{self.nonce}," in word for word in self.argv):
            raise ValueError("argv starts no machine with this nonce")
        if ("-append", self.cmdline) not in pairwise(self.argv):
            raise ValueError("argv gives the machine another command line than cmdline")
        return self

    @property
    def plan(self) -> str:
        """The name that all attempts at a trial share."""
        return self.name.removesuffix(f"-attempt-{self.attempt}")


class QmpEvent(Strict):
    """A QMP event; `t` is the host's CLOCK_MONOTONIC in ns when it reached the harness."""

    t: Stamp
    qemu_time: float
    event: Name
    details: dict[str, Any]


_QMP = TypeAdapter(list[QmpEvent])


class Trial(Stored):
    """Everything a verdict may look at."""

    setting: Setting
    host: HostLog | None = None
    """What the host did meanwhile; None where that was not measured."""
    qemu_fault: str | None = None
    """What shows that QEMU itself failed, and not the kernel; see common/record/qemu/fault.py."""
    console: Console
    sides: tuple[Side, ...]
    qmp: tuple[QmpEvent, ...]
    witness: dict[str, Any]
    """What a stage reads from its own raw files (traces, frames); see Stage.witness.

    "blind", where it is there, says in a sentence why these are no evidence.
    """
    update: int = 1
    """Which update of its machine is looked at: 1 but in the views of common/stage/chain.py."""
    tb_invalidations: tuple[int, ...] = ()
    """Translations that QEMU's TCG dropped, for each update, from the outgoing side's first word
    to the incoming side's last; empty where that was not measured."""
    samples: tuple[Sample, ...] = ()
    """What the CPUs' page tables lead to, seen from outside; see common/record/cpus/samples.py."""
    last_look: LastLook | None = None
    """What was seen of a machine that fell silent; None where none had to be looked at."""

    def side(self, name: str) -> Side | None:
        """The first side of that name ("outgoing" or "incoming"), None when it never spoke."""
        return next((side for side in self.sides if side.name == name), None)

    def resets(self) -> tuple[QmpEvent, ...]:
        """Platform resets during the machine's life, as QEMU reported them."""
        return tuple(event for event in self.qmp if event.event == "RESET")


class Made(Strict):
    """What made a run, as run.json has it before the first trial."""

    schema_version: int = SCHEMA
    id: Nonce = "0" * 16
    """By chance: no two runs have one."""
    stage: Annotated[int, Field(ge=1, le=99)]
    tool: Text
    commit: Text
    sources: dict[Name, Hex] = Field(default_factory=dict)
    """Group of this checkout's sources -> digest; see common/record/sources.py."""
    started: Text
    """UTC, as datetime.isoformat() has it."""
    command: tuple[Text, ...]
    planned: tuple[Name, ...] = ()
    """The trials that the run is to have, in their order."""

    def text(self) -> str:
        """run.json."""
        return self.model_dump_json(include=set(Made.model_fields)) + "\n"

    def nonce(self, name: str) -> str:
        """The nonce of the trial of that name."""
        return hashlib.sha256(f"{self.text()}{name}".encode()).hexdigest()[:16]


class Run(Made):
    """A run folder: what made it, and its trials."""

    trials: tuple[Trial, ...]

    def text(self) -> str:
        """record.json."""
        return self.model_dump_json() + "\n"

    def trial(self, name: str) -> Trial:
        """The trial of that name. Raises KeyError."""
        return {trial.setting.name: trial for trial in self.trials}[name]


@dataclass(frozen=True)
class RawTrial:
    """A trial's folder with what every reader of it asks for, read once."""

    folder: Path
    setting: Setting
    lines: Mapping[str, tuple[Line, ...]]
    """The stamped lines: "console" and "dialogue"."""
    console: Console
    sides: tuple[Side, ...]
    qmp: tuple[QmpEvent, ...]
    away: Mapping[str, tuple[Stretch, ...]]
    host: HostLog | None

    def within(self, name: str, *stamps: int) -> None:
        """Raises ValueError for stamps of that file that are not of this trial's time."""
        begin, end = self.setting.started_ns - _SLACK_NS, self.setting.ended_ns + _SLACK_NS
        if stamps and not begin <= min(stamps) <= max(stamps) <= end:
            raise ValueError(f"{name} has a stamp before the trial's start, or after its end")

    @cached_property
    def trace_log(self) -> TraceLog:
        """QEMU's trace log. Raises OSError."""
        asked, offset = qemu_trace.asked_of(self.setting.argv), self.setting.clock_offset_ns
        text = read_bytes(self.folder / TRACE).decode("utf-8", "replace")
        lines = text.splitlines(keepends=True)
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
    return trial_of(read_raw(folder), witness=witness)


def read_raw(folder: Path) -> RawTrial:
    """What every reader of a trial asks for. Raises UsageError on missing or damaged files."""
    with _told_as_damage(folder):
        setting = read_setting(folder)
        lines = {name: read_stamped(folder / f"{name}.jsonl") for name in ("console", "dialogue")}
        away = read_away(folder)
        raw = RawTrial(
            folder=folder,
            setting=setting,
            lines=lines,
            console=console.parse(lines["console"]),
            sides=dialogue.parse(lines["dialogue"]),
            qmp=tuple(read_rows(folder / "qmp.jsonl", _QMP)),
            away=away,
            host=read_host(folder, away),
        )
        for name, told in lines.items():
            raw.within(name, *(line.t for line in (*told[:1], *told[-1:])))
        in_order("qmp.jsonl", [event.t for event in raw.qmp])
        raw.within("qmp.jsonl", *(event.t for event in raw.qmp))
        for who, stretches in away.items():
            raw.within(f"away-{who}.jsonl", *(t for stretch in stretches for t in stretch))
        if raw.host:
            raw.within("host.jsonl", raw.host.begin, raw.host.end)
        return raw


def read_setting(folder: Path) -> Setting:
    """A trial's trial.json. Raises UsageError."""
    with _told_as_damage(folder):
        return Setting.model_validate_json(read_bytes(folder / "trial.json"))


def trial_of(raw: RawTrial, *, witness: Witness) -> Trial:
    """The trial that was read. Raises UsageError where its witnesses' files are damaged."""
    with _told_as_damage(raw.folder):
        found = witness(raw)
        if said := blind(raw, found):
            found["blind"] = said
        return Trial(
            setting=raw.setting,
            host=raw.host,
            qemu_fault=read_qemu_fault(raw.folder),
            console=raw.console,
            sides=raw.sides,
            qmp=raw.qmp,
            witness=found,
            tb_invalidations=jit.invalidations(raw.folder),
            samples=read_samples(raw.folder),
            last_look=read_last_look(raw.folder),
        )


@contextmanager
def _told_as_damage(folder: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UsageError(
            f"{folder}: half a trial, {Path(error.filename).name} is missing"
            " (was the harness killed?); run it again"
        ) from None
    except ValidationError as error:
        said = f"{error.title}: {first_fault(error)}"
        raise UsageError(f"{folder}: damaged trial: {said}; run it again") from None
    except (ValueError, OSError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{folder}: damaged trial: {first}; run it again") from None


def schema_text() -> str:
    """The published JSON Schema of a run's record."""
    return json.dumps(Run.model_json_schema(), indent=2, sort_keys=True) + "\n"

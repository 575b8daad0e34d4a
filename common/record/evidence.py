# SPDX-License-Identifier: GPL-2.0-only
"""The evidence record: what one trial left, as one typed value.

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
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, SerializeAsAny

from common.errors import UsageError
from common.record.console import Console
from common.record.cpus.last_look import LastLook, read_last_look
from common.record.cpus.samples import Sample, read_samples
from common.record.dialogue import Side, Stored
from common.record.host.log import HostLog
from common.record.qemu import jit
from common.record.qemu.fault import read_lost_interrupt, read_qemu_fault
from common.record.raw import QmpEvent, RawTrial, read_raw, told_as_damage
from common.record.setting import SCHEMA, Nonce, Setting
from common.record.stored_file import (
    Hex,
    Name,
    Strict,
    Text,
)
from common.record.witnesses import Witnessed, blind

W = TypeVar("W", bound=Witnessed)


class Trial(Stored):
    """All evidence on which a verdict may rest."""

    setting: Setting
    host: HostLog | None = None
    """What the host did meanwhile; None where that was not measured."""
    qemu_fault: str | None = None
    """What shows that QEMU itself failed, and not the kernel; see common/record/qemu/fault.py."""
    lost_interrupt: str | None = None
    """The same of an interrupt that it lost, which a machine may outlive."""
    console: Console
    sides: tuple[Side, ...]
    qmp: tuple[QmpEvent, ...]
    witness: SerializeAsAny[Witnessed]
    """What the host's witnesses saw: the stage's own model; see Stage.witness."""
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

    def seen(self, kind: type[W]) -> W:
        """The same, as the model of which the caller knows the fields.

        Raises TypeError where it is of another kind, as of an update at which nobody looked.
        """
        if not isinstance(self.witness, kind):
            raise TypeError(f"there is no {kind.__name__} of this trial")
        return self.witness

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

    def began(self) -> datetime:
        """When the run began, in UTC. Raises UsageError where it does not say."""
        try:
            return datetime.fromisoformat(self.started).astimezone(UTC)
        except ValueError:
            raise UsageError(f"{self.started!r} is not a valid start time of a run") from None

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


Witness = Callable[[RawTrial], Witnessed]


def collect(folder: Path, *, witness: Witness) -> Trial:
    """The trial of a folder, from its raw files; `witness` reads the stage's own.

    Raises UsageError on missing or damaged ones.
    """
    return trial_of(read_raw(folder), witness=witness)


def trial_of(raw: RawTrial, *, witness: Witness) -> Trial:
    """The trial that was read. Raises UsageError where its witnesses' files are damaged."""
    with told_as_damage(raw.folder):
        found, lost = witness(raw), read_lost_interrupt(raw.folder)
        if said := blind(raw, found):
            found = found.model_copy(update={"blind": said})
        return Trial(
            setting=raw.setting,
            host=raw.host,
            qemu_fault=read_qemu_fault(raw.folder) or lost,
            lost_interrupt=lost,
            console=raw.console,
            sides=raw.sides,
            qmp=raw.qmp,
            witness=found,
            tb_invalidations=jit.invalidations(raw.folder),
            samples=read_samples(raw.folder),
            last_look=read_last_look(raw.folder),
        )


def schema_text() -> str:
    """The published JSON Schema of a run's record."""
    return json.dumps(Run.model_json_schema(), indent=2, sort_keys=True) + "\n"

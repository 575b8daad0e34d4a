# SPDX-License-Identifier: GPL-2.0-only
"""A trial's folder, read once: what every reader of it asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from common.errors import UsageError
from common.record import console, dialogue
from common.record.console import Console
from common.record.dialogue import Line, Side
from common.record.host.away import Stretch, read_away
from common.record.host.log import HostLog, read_host
from common.record.qemu import trace as qemu_trace
from common.record.qemu.trace import TraceEvent, TraceLog
from common.record.setting import Setting
from common.record.stored_file import (
    Name,
    Stamp,
    Strict,
    first_fault,
    in_order,
    read_bytes,
    read_rows,
    read_stamped,
)

_SLACK_NS = 1_000_000_000


TRACE = "qemu-trace.log"


class QmpEvent(Strict):
    """A QMP event; `t` is the host's CLOCK_MONOTONIC in ns when it reached the harness."""

    t: Stamp
    qemu_time: float
    event: Name
    details: dict[str, Any]


_QMP = TypeAdapter(list[QmpEvent])


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


def read_raw(folder: Path) -> RawTrial:
    """What every reader of a trial asks for. Raises UsageError on missing or damaged files."""
    with told_as_damage(folder):
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
    with told_as_damage(folder):
        return Setting.model_validate_json(read_bytes(folder / "trial.json"))


@contextmanager
def told_as_damage(folder: Path) -> Iterator[None]:
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

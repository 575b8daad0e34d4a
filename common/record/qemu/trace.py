# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's trace log, as events with times: what the device models were told and did.

Its lines differ between versions, and are known by what they look like, never by a version.
A line that names an event, and cannot be read, is kept as *strange*: what cannot be read must
not count as what did not happen.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

# util/log.c before 11: "PID@SECONDS.MICROSECONDS:EVENT ARGUMENTS", CLOCK_REALTIME
_COUNTED = re.compile(r"\d+@(\d+)\.(\d{6}):")
# util/message.c since 11: RFC 3339 by g_date_time_format_iso8601(), without a fraction of 0
_DATED = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?(?:([Zz])|([+-]\d\d):?(\d\d))\s+"
)
_EVENT = re.compile(r"([A-Za-z_]\w*)(?: (.*))?$")
# hw/pci/trace-events: "NAME BB:SS.F @0xOFFSET <- 0xVALUE"
_CONFIG = re.compile(r"\S+ ([0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) @0x([0-9a-f]+) <- 0x([0-9a-f]+)")
# Of every machine: its shutdown, by which we end it, is the last line of its log.
ALWAYS = ("runstate_set", "qemu_system_shutdown_request")
# What is read in the text of an event, here or by a stage, has to be all that it says, and as here.
TEXTS = {
    "pci_cfg_write": _CONFIG,
    "pci_pm_transition": re.compile(
        r"\S+ [0-9a-f]{2}:[0-9a-f]{2}\.[0-7] PM transition D[0-3]->D[0-3]"
    ),
    "e1000x_rx_can_recv_disabled": re.compile(r"link_up: [01], rx_enabled [01], pci_master [01]"),
    "vtd_dmar_enable": re.compile(r"enable [01]"),
    "vtd_reg_dmar_root": re.compile(r"addr (0x[0-9a-f]+) scalable [01]"),
    "vtd_ir_enable": re.compile(r"enable [01]"),
    "vtd_reg_ir_root": re.compile(r"addr (0x[0-9a-f]+) size (0x[0-9a-f]+)"),
    "vtd_ir_remap_msi_req": re.compile(r"addr (0x[0-9a-f]+) data 0x[0-9a-f]+"),
    "vtd_ir_remap_msi": re.compile(
        r"\(addr (0x[0-9a-f]+), data 0x[0-9a-f]+\) -> \(addr 0x[0-9a-f]+, data 0x[0-9a-f]+\)"
    ),
    "vtd_dmar_fault": re.compile(r"sid (0x[0-9a-f]+) fault (\d+) addr (0x[0-9a-f]+) write ([01])"),
    "e1000e_irq_msix_notify_vec": re.compile(r"MSI-X notify vector (0x[0-9a-f]+)"),
    "e1000e_irq_msix_notify_postponed_vec": re.compile(r"Sending MSI-X postponed by EITR\[(\d+)\]"),
    "runstate_set": re.compile(r"current_run_state \d+ \(([\w-]+)\) new_state \d+ \(([\w-]+)\)"),
}


INTERRUPTS = ("e1000e_irq_msix_notify_vec", "e1000e_irq_msix_notify_postponed_vec")
"""An igb's interrupt: raised at once, or after the time between two that its driver wants."""


class TraceEvent(NamedTuple):
    """One line of the log; `t` is the host's CLOCK_MONOTONIC in ns."""

    t: int
    name: str
    text: str


@dataclass(frozen=True)
class ConfigWrite:
    """A write to PCI configuration space; `bdf` without a domain."""

    t: int
    bdf: str
    offset: int
    value: int


@dataclass(frozen=True)
class TraceLog:
    """A log, read: its events, and what of it nobody could read."""

    events: tuple[TraceEvent, ...]
    lines: int
    strange: int
    """How many lines name an event that was asked for, and could not be read as one."""
    first_strange: str
    """The first of them, as it stands; "" without one."""
    first_line: str
    """The log's first line, "" where there is none."""


def switches(events: Iterable[TraceEvent], name: str) -> Iterator[tuple[int, bool]]:
    """(host's ns, True for on) of each event `name`, which says "enable 1" or "enable 0"."""
    for event in events:
        if event.name == name:
            yield event.t, event.text.endswith(" 1")


def ms_after(t: int, zero: int) -> float:
    """Ms from `zero` to `t`, both of one clock in ns; to 0.1 ms."""
    return round((t - zero) / 1e6, 1)


def parse(lines: Iterable[str], *, clock_offset_ns: int) -> Iterator[TraceEvent]:
    """The events of a log. Lines that are none (QEMU's own messages) are left out.

    `clock_offset_ns` is CLOCK_REALTIME minus CLOCK_MONOTONIC.
    """
    for line in lines:
        if event := _event(line, clock_offset_ns):
            yield event


def read(lines: Iterable[str], *, asked: Collection[str], clock_offset_ns: int) -> TraceLog:
    """The log, with an account of what could not be read. `asked` are the events' names."""
    events, count, first, strange = [], 0, "", list[str]()
    for line in lines:
        count += 1
        first = first or line.rstrip("\r\n")
        event = _event(line, clock_offset_ns)
        if event and event.name in asked:
            pattern = TEXTS.get(event.name)
            whole = line.endswith("\n") and (pattern is None or pattern.fullmatch(event.text))
        else:
            whole = not any(name in line for name in asked)
        if not whole:
            strange.append(line.rstrip("\r\n"))
        elif event:
            events.append(event)
    return TraceLog(tuple(events), count, len(strange), strange[0] if strange else "", first)


def _event(line: str, clock_offset_ns: int) -> TraceEvent | None:
    if match := _COUNTED.match(line):
        t = int(match[1] + match[2]) * 1000
    elif match := _DATED.match(line):
        day, time, fraction, _zulu, hours, minutes = match.groups()
        zone = f"{hours}:{minutes}" if hours else "+00:00"
        try:
            whole = datetime.fromisoformat(f"{day}T{time}{zone}")
        except ValueError:
            return None
        t = int(whole.timestamp()) * 10**9 + int((fraction or "0").ljust(9, "0"))
    else:
        return None
    found = _EVENT.match(line.rstrip("\r\n"), match.end())
    return TraceEvent(t - clock_offset_ns, found[1], found[2] or "") if found else None


def config_write(event: TraceEvent) -> ConfigWrite | None:
    """The event as a write to configuration space, None when it is another."""
    if event.name != "pci_cfg_write" or not (match := _CONFIG.fullmatch(event.text)):
        return None
    return ConfigWrite(event.t, match[1], int(match[2], 16), int(match[3], 16))


def asked_of(argv: Sequence[str]) -> frozenset[str]:
    """The events that a QEMU with this command line was asked to trace."""
    return frozenset(word for option, word in pairwise(argv) if option == "-trace")

# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's trace log, as events with times: what the device models were told and did."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

# util/log.c: "PID@SECONDS.MICROSECONDS:EVENT ARGUMENTS", CLOCK_REALTIME
_LINE = re.compile(r"\d+@(\d+)\.(\d{6}):(\w+) ?(.*)$")
# hw/pci/trace-events: "NAME BB:SS.F @0xOFFSET <- 0xVALUE"
_CONFIG = re.compile(r"\S+ ([0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) @0x([0-9a-f]+) <- 0x([0-9a-f]+)")


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


def parse(lines: Iterable[str], *, clock_offset_ns: int) -> Iterator[TraceEvent]:
    """The events of a log. Lines that are none (QEMU's own messages) are left out."""
    for line in lines:
        if match := _LINE.match(line):
            seconds, micros, name, text = match.groups()
            yield TraceEvent(int(seconds + micros) * 1000 - clock_offset_ns, name, text)


def config_write(event: TraceEvent) -> ConfigWrite | None:
    """The event as a write to configuration space, None when it is another."""
    if event.name != "pci_cfg_write" or not (match := _CONFIG.match(event.text)):
        return None
    return ConfigWrite(event.t, match[1], int(match[2], 16), int(match[3], 16))

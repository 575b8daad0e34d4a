# SPDX-License-Identifier: GPL-2.0-only
"""What QEMU's log has of the machine's CPUs at a reset, where it logs resets (-d cpu_reset)."""

from __future__ import annotations

import re
from collections.abc import Iterable

LOGGED = ("-d", "cpu_reset")
"""For QEMU's command line."""
# target/i386/tcg/excp_helper.c:check_exception(); of a CPU in a guest of its own it is a VM exit.
# QEMU 11 puts the time before it, as it does with events.
_TRIPLE_FAULT = re.compile(r"(?:\S+ )?Triple fault")
# hw/core/cpu-common.c:cpu_common_reset_hold(), with the state that is about to be lost
_CPU = re.compile(r"CPU Reset \(CPU (\d+)\)")


_RESET_VECTOR = "EIP=0000fff0 "


def registers_at_triple_fault(lines: Iterable[str]) -> str | None:
    """The CPUs' registers as the last triple fault left them, in the form in which QEMU's monitor
    answers `info registers -a`; "" where QEMU logs them after the reset only, as 11.1 does, and
    None where there was no such fault.
    """
    found: list[str] = []
    seen: set[str] | None = None
    inside = False
    for line in lines:
        text = line.rstrip("\r\n")
        if _TRIPLE_FAULT.fullmatch(text):
            found, seen, inside = [], set(), True
        elif seen is not None and inside and (match := _CPU.fullmatch(text)):
            # Of each CPU the first: it may be reset again before it runs.
            inside = match[1] not in seen
            seen.add(match[1])
            found += [f"CPU#{match[1]}"] if inside else []
        elif inside:
            found.append(text)
    if seen is None:
        return None
    places = [text for text in found if text.startswith(("EIP=", "RIP="))]
    if all(text.startswith(_RESET_VECTOR) for text in places):
        return ""
    return "".join(f"{text}\n" for text in found)

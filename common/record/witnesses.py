# SPDX-License-Identifier: GPL-2.0-only
"""What the host's witnesses saw of a trial: the base of each stage's model of it; and what they
must have seen, and did not.

What nobody could read looks like what did not happen. So a trial whose witnesses left nothing,
or nothing that can be read, is an error and no verdict on a kernel, whatever its checks would
say. Pure functions of a trial's raw files; common/machine/sight.py tries the witnesses of a machine
that runs.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from pydantic import ConfigDict

from common.record.dialogue import Side, Stored
from common.record.qemu import trace as qemu_trace
from common.record.qemu.trace import TraceLog, config_write
from common.record.raw import TRACE, RawTrial

_QUOTED = 120
# A device that may not receive is e1000x_rx_can_recv_disabled, too: nothing rests on these two.
_SELDOM = frozenset(
    {"e1000x_rx_link_down", "e1000x_rx_disabled", *qemu_trace.ALWAYS, *qemu_trace.INTERRUPTS[1:]}
)
# Made by the workload itself on the other side: a fault, by frames to what it has unmapped, or by
# the second device, whose bus mastering it has forced on.
_LATER = {"vtd_dmar_fault": ("await.snapshot-mapped", "await.gap-read")}


class Witnessed(Stored):
    """What a stage reads from its own raw files (traces, packets, samples of RAM).

    A stage's witness returns a subclass, which forbids fields that it does not name. This class
    itself accepts any field, so that a stored record can be read without knowing its stage.
    """

    model_config = ConfigDict(extra="allow")

    blind: str | None = None
    """Why all of this is no evidence, in a sentence; see blind()."""

    def of_update(self, index: int) -> Witnessed:
        """What was seen of that update of a chain, 0 the first; nothing where none was looked at.

        A witness that looks at one update only has the same to say of each.
        """
        return self if index == 0 else Witnessed()

    def unseen(self, _sides: Sequence[Side]) -> str | None:
        """What a witness did not see although the trial came so far, in a sentence; else None."""
        return None


def blind(raw: RawTrial, witness: Witnessed) -> str | None:
    """What a witness of a stored trial did not see that it must have; None when all saw.

    `witness` is what the stage read of them.
    """
    qemu = raw.setting.host.versions.get("qemu", "of an unknown version")
    asked = qemu_trace.asked_of(raw.setting.argv)
    if asked.difference(qemu_trace.ALWAYS):
        side = next((side for side in raw.sides if side.name == "outgoing"), None)
        window = (raw.setting.started_ns, side.started) if side else None
        if said := unread(raw.trace_log, asked, qemu, window) or _cut_off(raw, qemu):
            return said
        if said := _unseen(raw, asked, qemu):
            return said
    if not any(event.event == "RESUME" for event in raw.qmp):
        return f"qmp.jsonl: QEMU {qemu} did not even report that the machine was started"
    return _unmeasured(raw) or witness.unseen(raw.sides)


def _unmeasured(raw: RawTrial) -> str | None:
    """What of the host beside the trial is missing."""
    if raw.host is None:
        return "what the host did was not measured: host.jsonl is missing or empty"
    if not raw.host.echoes:
        return "whether QEMU ran was not measured: no echo came back through it (host.jsonl)"
    return None


def told_of_start(folder: Path) -> bool:
    """Whether QMP's events reached us: the start of the machine is the first of them."""
    lines = (folder / "qmp.jsonl").read_text().splitlines()
    return any(json.loads(line)["event"] == "RESUME" for line in lines)


def unread(
    log: TraceLog, asked: Collection[str], qemu: str, boot: tuple[int, int] | None
) -> str | None:
    """A sentence on a trace that cannot be read, or that has nothing of the `boot` (ns)."""
    if not log.lines:
        return f"QEMU {qemu} wrote no trace: {TRACE} is empty"
    if log.strange:
        more = f" and {log.strange - 1} more like it" if log.strange > 1 else ""
        return (
            f"QEMU {qemu}'s trace cannot be read: {TRACE} has the line"
            f" {_quoted(log.first_strange)}{more}"
        )
    if boot is None or "pci_cfg_write" not in asked:
        return None
    if any(boot[0] <= event.t <= boot[1] and config_write(event) for event in log.events):
        return None
    return (
        f"QEMU {qemu}'s trace has no write to PCI configuration space while the machine booted,"
        f" though every boot makes some; {TRACE} begins with {_quoted(log.first_line)}"
    )


def _unseen(raw: RawTrial, asked: Collection[str], qemu: str) -> str | None:
    """An event whose absence could prove nothing, as this very trial shows none of them at all.

    Firmware, kernel and workload make each of them while the machine boots and its devices are set
    up, before the traffic; but for those in `_LATER`, and those in `_SELDOM`.
    """
    stamps: dict[str, int] = {}
    for side in raw.sides:
        stamps |= side.stamps
    if (begun := stamps.get("await.traffic")) is None:
        return None
    early = {event.name for event in raw.trace if event.t < begun}
    for event in sorted(asked):
        if event not in early and event not in _SELDOM and event not in _LATER:
            return (
                f"QEMU {qemu}'s trace has no {event} before the traffic, though setting up the"
                f" devices causes some: that there is none later proves nothing ({TRACE})"
            )
    names = {event.name for event in raw.trace}
    for event, points in _LATER.items():
        passed = [point for point in points if point in stamps]
        if event in asked and passed and event not in names:
            return (
                f"QEMU {qemu}'s trace has no {event}, though the workload caused some before"
                f" {passed[0]}: that there is none elsewhere proves nothing ({TRACE})"
            )
    return None


def _cut_off(raw: RawTrial, qemu: str) -> str | None:
    """Each machine that does not go by itself is shut down by us, and that ends its trace.

    It need not be the very last line: a CPU may be in the middle of something.
    """
    if raw.setting.ended in ("gone", "interrupted"):
        return None
    if any(e.name == "runstate_set" and e.text.endswith("(shutdown)") for e in raw.trace):
        return None
    last = raw.trace[-1] if raw.trace else None
    where = f"after {_quoted(f'{last.name} {last.text}')}" if last else "before its first event"
    return f"QEMU {qemu}'s trace is cut off: {TRACE} ends {where}, and has no shutdown"


def _quoted(line: str) -> str:
    return repr(line if len(line) <= _QUOTED else f"{line[:_QUOTED]}...")

# SPDX-License-Identifier: GPL-2.0-only
"""Stage 3's witnesses on the host: those of a device, and of the IOMMU before it.

QEMU says what was done to the IOMMU: translation turned on or off, a root table set, a fault.
At each point that the workload names, the host reads the tables that the IOMMU is using in
the machine's RAM, from the root table that QEMU was told: tables.json. The kernel under test
is asked for neither.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pydantic import TypeAdapter

from common.dma import witness as frame_witness
from common.dma.igb import DEVICE, OTHER
from common.dma.vtd import context_entry, domain_ids, page_table
from common.dma.witness import FrameWitness
from common.errors import HarnessError
from common.machine.helper import HostHelper, MachineView
from common.machine.ram import MachineRam
from common.record.dialogue import Side
from common.record.qemu.trace import TEXTS, TraceEvent, ms_after, parse, switches
from common.record.raw import RawTrial
from common.record.stored_file import in_order, read_json
from common.record.trial_files import TrialFile
from iommufd import remapping
from iommufd.evidence import Faults, Look, Table, Translation, TranslationEvidence

TRACES = (
    *frame_witness.TRACES,
    "vtd_dmar_enable",
    "vtd_reg_dmar_root",
    "vtd_dmar_fault",
    *remapping.TRACES,
)
TABLES = "tables.json"
TABLES_FILE = TrialFile(TABLES, needed=False)
FILES = (
    *frame_witness.FILES,
    TABLES_FILE,
    *frame_witness.frame_logs("again-device-sent.bin", "again-other-sent.bin"),
    TrialFile("away-again-sender.jsonl", needed=False),
)
"""What trials of the stage leave."""
_ROOT, _FAULT = TEXTS["vtd_reg_dmar_root"], TEXTS["vtd_dmar_fault"]
_SNAPSHOT = "# await snapshot-"
_SMALL_PAGE = 4096
# A serial line's interrupts are requests as well: thousands, where the workload speaks.
_REQUESTS_FROM, _REQUESTS_TO = "# await kho-reboot", "# await snapshot-booted"
# What begins with which word of the incoming side, after the proof.
_WINDOWS = (
    ("reused", "again.first"),
    ("unmapped", "unmap.first"),
    ("mapped", "await.snapshot-mapped"),
    ("detached", "await.detaching"),
)
_WINDOWS_BEFORE_REUSE = (("unmapped", "again.first"), ("mapped", "await.snapshot-mapped"))


_LOOKS = TypeAdapter(list[Look])


class TranslationWitness(FrameWitness):
    """Sender, watcher, and a look at the IOMMU's tables where the workload waits for it."""

    address_fact = "iova"
    unread_from = "# t.unread="
    other_room = 512

    def __init__(self, machine: MachineView) -> None:
        super().__init__(machine)
        self._first_again = 0
        self._looks: list[Look] = []
        self._trace_requests(on=False)

    def on_line(self, text: str) -> None:
        """Also send again, for what is unmapped and mapped, and look at tables."""
        super().on_line(text)
        if text.startswith("# again.first="):
            self._first_again = int(text.partition("=")[2])
        elif text == "# await traffic-again":
            self.start_sender(prefix="again-", first=self._first_again)
        elif text == "# await silence-again":
            self.stop()
        elif text.startswith(_SNAPSHOT):
            self._look(text.removeprefix(_SNAPSHOT))
        if text in (_REQUESTS_FROM, _REQUESTS_TO):
            self._trace_requests(on=text == _REQUESTS_FROM)

    def _trace_requests(self, *, on: bool) -> None:
        for event in set(remapping.REQUESTS).intersection(self.machine.spec.traces):
            self.machine.ask_qemu(f"trace-event {event} {'on' if on else 'off'}")

    def watcher_options(self) -> list[object]:
        """The root table that the IOMMU is using."""
        return ["--root", self._root()]

    def _root(self) -> str:
        """Raises HarnessError: an address made up would be read as a table all the same."""
        with (self.machine.folder / "qemu-trace.log").open(errors="replace") as lines:
            roots = [address for _, address in _roots(parse(lines, clock_offset_ns=0))]
        if not roots:
            raise HarnessError(
                "the host cannot read the IOMMU's tables: QEMU's trace has no root table set by"
                " the kernel (no vtd_reg_dmar_root in qemu-trace.log)"
            )
        return roots[-1]

    def _look(self, when: str) -> None:
        root = self._root()
        with MachineRam(self.machine.process.pid) as ram:
            tables = {bdf: _table(ram, int(root, 0), bdf) for bdf in (DEVICE, OTHER)}
            place = {"when": when, "t": time.monotonic_ns(), "root": root, "ram_end": ram.end}
            look = place | {"domains": _domains(ram, int(root, 0))} | tables
        self._looks.append(Look.model_validate(look))
        text = _LOOKS.dump_json(self._looks, indent=1, by_alias=True)
        (self.machine.folder / TABLES).write_bytes(text + b"\n")


def _domains(ram: MachineRam, root: int) -> dict[str, int]:
    """BDF -> domain ID of every device; {} where there is no table."""
    try:
        return domain_ids(ram.read, root) if root else {}
    except ValueError:
        return {}


def _table(ram: MachineRam, root: int, bdf: str) -> Table | None:
    """What the IOMMU has for a device; None when it blocks it, or when that is no table."""
    try:
        entry = context_entry(ram.read, root, bdf) if root else None
        table = page_table(ram.read, entry) if entry and entry.translates else None
    except ValueError:
        return None
    if entry is None or table is None:
        return None
    return Table(
        context_table=hex(entry.table),
        context_entry=f"{entry.high:#x}:{entry.low:#x}",
        domain=entry.domain,
        top=hex(entry.top),
        pages=[hex(page) for page in table.pages],
        sha256=table.sha256,
        mapped=sum(leaf.size for leaf in table.leaves),
        read_only=sum(leaf.size for leaf in table.leaves if not leaf.writable),
        large=sum(leaf.size for leaf in table.leaves if leaf.size > _SMALL_PAGE),
        lowest=min((leaf.iova for leaf in table.leaves), default=None),
    )


@contextmanager
def translation_witness(machine: MachineView) -> Iterator[HostHelper]:
    """The helper of stage 3."""
    witness = TranslationWitness(machine)
    try:
        yield witness
    finally:
        witness.stop()


def read_witness(raw: RawTrial) -> TranslationEvidence:
    """What the witnesses of a stored trial saw. Raises OSError or ValueError when damaged."""
    tables = raw.folder / TABLES
    looks = read_json(tables, _LOOKS) if tables.exists() else []
    in_order(tables.name, [look.t for look in looks])
    raw.within(tables.name, *(look.t for look in looks))
    kernels = raw.console
    zero = kernels.kexecs[0] if kernels.kexecs else raw.setting.started_ns
    booted = kernels.boots[1].t if len(kernels.boots) > 1 else None
    return TranslationEvidence(
        **dict(frame_witness.read_witness(raw)),
        tables=tuple(looks),
        remapping=remapping.read_remapping(raw.trace, raw.sides, zero),
        translation=Translation(
            enables=tuple(
                (ms_after(t, zero), on) for t, on in switches(raw.trace, "vtd_dmar_enable")
            ),
            roots=tuple((ms_after(t, zero), address) for t, address in _roots(raw.trace)),
            incoming=None if booted is None else ms_after(booted, zero),
            faults=_faults(raw.trace, raw.sides, zero),
            at_reused=_at_reused(raw.trace, raw.sides),
        ),
    )


def _roots(events: Iterable[TraceEvent]) -> Iterator[tuple[int, str]]:
    """(host's ns, address of the root table in hex) of each root table that a kernel set."""
    for event in events:
        if event.name == "vtd_reg_dmar_root" and (match := _ROOT.match(event.text)):
            yield event.t, match[1]


def _faults(
    events: Iterable[TraceEvent], sides: tuple[Side, ...], zero: int
) -> dict[str, dict[str, Faults]]:
    """By part of the trial, and by device; see Translation."""
    begin_of_user = next((side.started for side in sides if side.name == "incoming"), zero)
    last = sides[-1].stamps if sides else {}
    names, times = ["proof"], [0]
    for name, stamp in _WINDOWS if "unmap.first" in last else _WINDOWS_BEFORE_REUSE:
        if stamp in last:
            names.append(name)
            times.append(last[stamp])
    faults: dict[str, dict[int, list[tuple[int, int, str]]]] = {
        name: {} for name in ("proof", *(name for name, _ in _WINDOWS))
    }
    for event in events:
        if event.name != "vtd_dmar_fault" or not (match := _FAULT.match(event.text)):
            continue
        when = names[bisect_right(times, event.t) - 1]
        source, address = int(match[1], 16), int(match[3], 16)
        faults[when].setdefault(source, []).append((event.t, address, event.text))
    return {
        when: {_bdf(source): _summary(seen, zero, begin_of_user) for source, seen in by.items()}
        for when, by in faults.items()
    }


def _at_reused(events: Iterable[TraceEvent], sides: tuple[Side, ...]) -> int | None:
    """Faults where the device had just written, and was led again; None when nobody led it."""
    side = sides[-1] if sides else None
    start = side.number("reuse.iova") if side else None
    length = side.number("reuse.length") if side else None
    if side is None or start is None or length is None or "unmap.first" not in side.stamps:
        return None
    begin, end = side.stamps["again.first"], side.stamps["unmap.first"]
    found = (
        match
        for event in events
        if event.name == "vtd_dmar_fault" and begin <= event.t < end
        if (match := _FAULT.match(event.text)) and _bdf(int(match[1], 16)) == DEVICE
    )
    return sum(start <= int(match[3], 16) < start + length for match in found)


def _summary(faults: list[tuple[int, int, str]], zero: int, begin_of_user: int) -> Faults:
    times = [t for t, _, _ in faults]
    addresses = [address for _, address, _ in faults]
    return Faults(
        count=len(faults),
        in_gap=sum(zero < t < begin_of_user for t in times),
        first=(ms_after(times[0], zero), faults[0][2]),
        last=ms_after(times[-1], zero),
        lowest=min(addresses),
        highest=max(addresses),
    )


def _bdf(source: int) -> str:
    return f"{source >> 8:02x}:{source >> 3 & 31:02x}.{source & 7}"

# SPDX-License-Identifier: GPL-2.0-only
"""What the host sees of the small memfds and of KHO, beside the guest's RAM.

The workload says in which page frames its memfds lie before the kexec. The host hashes those
frames at `files-written` and again at `files`, in the incoming kernel. At each rendezvous
`kho-NAME` it counts what is registered with KHO, in the machine's RAM.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Annotated

from pydantic import Field, TypeAdapter

from common.machine.helper import HostHelper, MachineView
from common.machine.kho_counts import KhoCounts
from common.machine.ram import MachineRam
from common.record.raw import RawTrial
from common.record.setting import LONGEST
from common.record.stored_file import read_json
from common.record.trial_files import TrialFile
from kvm_memfd.evidence import FilesPoint, FilesSeen, MemfdEvidence, Update
from kvm_memfd.witness import FILE as RAM_WITNESS
from kvm_memfd.witness import ram_witness
from kvm_memfd.witness import read_witness as read_ram_witness

FILE = "files-witness.json"
FILES = (TrialFile(FILE), TrialFile(RAM_WITNESS))
"""What each trial of the stage leaves."""
_FRAMES = "# frames."


_SEEN = TypeAdapter(Annotated[tuple[FilesSeen, ...], Field(min_length=1, max_length=LONGEST)])


class _OneUpdate:
    def __init__(self, ram: MachineRam) -> None:
        self._ram = ram
        self._frames: list[tuple[int, int]] = []
        self.digests: dict[FilesPoint, str] = {}
        self._kho = KhoCounts(lambda: nullcontext(ram))

    def on_line(self, text: str) -> None:
        if text.startswith(_FRAMES) and not self.digests:
            self._frames += frames(text.partition("=")[2])
        elif text in ("# at files-written", "# await files"):
            point: FilesPoint = "files-written" if text.endswith("written") else "files"
            self.digests[point] = self._ram.sha256(self._frames)
        self._kho.on_line(text)

    def result(self) -> FilesSeen:
        pages = sum(count for _, count in self._frames)
        return FilesSeen(pages=pages, sha256=self.digests, kho=self._kho.counts)


class FilesWitness:
    """Of one update after the other; there are more than one in a chain only."""

    def __init__(self, ram: MachineRam, beside: HostHelper) -> None:
        self._ram, self._beside = ram, beside
        self._updates = [_OneUpdate(ram)]

    def on_line(self, text: str) -> None:
        """Take a line of the dialogue; an outgoing side that follows another begins an update."""
        if text == "# side=outgoing" and self._updates[-1].digests:
            self._updates.append(_OneUpdate(self._ram))
        self._updates[-1].on_line(text)
        self._beside.on_line(text)

    def result(self) -> tuple[FilesSeen, ...]:
        """What was seen of each update, in their order."""
        return tuple(update.result() for update in self._updates)


def frames(text: str) -> list[tuple[int, int]]:
    """(page frame number, count) of "PFN:COUNT,PFN:COUNT"; none of an empty text."""
    parts = [part.partition(":") for part in text.split(",") if part]
    return [(int(pfn), int(count)) for pfn, _, count in parts]


@contextmanager
def witnesses(machine: MachineView) -> Iterator[HostHelper]:
    """The helper of stage 1: the witness of the guest's RAM, and this one."""
    with (
        ram_witness(machine) as beside,
        MachineRam(machine.process.pid, machine.spec.arch.ram) as ram,
    ):
        witness = FilesWitness(ram, beside)
        yield witness
        (machine.folder / FILE).write_bytes(_SEEN.dump_json(witness.result()) + b"\n")


def read_witnesses(raw: RawTrial) -> MemfdEvidence:
    """What both saw of a stored trial. Raises OSError or ValueError when one is damaged."""
    ram, files = read_ram_witness(raw), read_json(raw.folder / FILE, _SEEN)
    later = (Update(ram=one, files=other) for one, other in zip(ram[1:], files[1:], strict=False))
    return MemfdEvidence(ram=ram[0], files=files[0], later=tuple(later))

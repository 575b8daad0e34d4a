# SPDX-License-Identifier: GPL-2.0-only
"""What the host saw in CPUs and RAM of a machine that fell silent, and whether its kernel is dead.

A kernel that dies before its console says nothing. But its log is in RAM, and a CPU that will
never run again stands still in its registers. What was seen is kept raw in FILE; that it shows a
death, where, and of what, is a pure function of it. Time has no part in it, so that a machine
which is slow, or whose host does not run it, is never taken for dead.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from common.record.console import FATAL, Console, strip_prefix
from common.record.cpus.ram_log import RamLog
from common.record.cpus.samples import CpuSample, Sample
from common.record.setting import Setting
from common.record.stored_file import Hex, Stamp, Strict, read_json

FILE = "last-look.json"
LOG = "log-from-ram.txt"
_AT = re.compile(r"^(?:RIP: [0-9a-f]+:|pc : )([A-Za-z_][\w.]*\+0x[0-9a-f]+/0x[0-9a-f]+)")
_BUG_AT = re.compile(r"kernel BUG at (\S+?)!?$")
_FAULT = re.compile(
    r"(?:BUG: .*(?:page fault for address|dereference, address):"
    r"|Unable to handle kernel .* at virtual address) (?:0x)?([0-9a-f]+)"
)
_PANIC = re.compile(r"Kernel panic - not syncing: (.*)")
FAULT_SAMPLES, _TURNS = 12, 4
"""Looks at an instruction that faults for good, and how often they must come and go between it
and its exception."""
_PLACES = 2
_QUOTED = 80
_CR2 = re.compile(r"^CR2: ([0-9a-f]+)")


class LastLook(Strict):
    """Samples of a machine that fell silent, or that was just reset."""

    t: Stamp
    why: Literal["silent", "reset", "timeout"]
    samples: tuple[Sample, ...]
    """One after the other, at least a second apart. Of a machine that was reset by a triple fault
    one, as that left it; of one that was reset otherwise none."""
    triple_fault: bool = False
    """That is why it was reset, as QEMU logged."""
    cpu: Annotated[int, Field(ge=0, lt=1024)] | None
    """The number of the CPU whose kernel, stack and place are told."""
    build_id: Hex | None
    """Of the kernel in RAM whose log it is, by the note that is there."""
    log: RamLog
    names: dict[str, str]
    """Instruction address, in hex -> function+offset/size, for the CPUs that run that kernel."""
    stack: tuple[str, ...] = ()
    """What of the CPU's stack could be a return address, from the top."""
    lines: dict[str, str]
    """function+offset/size -> file:line, where the kernel was built."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The messages of the log."""
        return tuple(line.text for line in self.log.lines)

    def log_text(self) -> str:
        """The log as LOG has it."""
        return "".join(f"{line}\n" for line in self.log.lines)

    def place_of(self, name: str) -> str:
        """A function+offset/size with file and line, where these are known."""
        line = self.lines.get(name)
        return f"{name.partition('+')[0]} ({line})" if line else name


_LOOK = TypeAdapter(LastLook)


class Death(Strict):
    """What a kernel died of: a sentence, and the function+offset/size where."""

    what: str
    place: str | None


def death(look: LastLook) -> Death | None:
    """What the kernel died of, None where nothing shows that it is dead."""
    texts = look.texts
    if any(FATAL.search(text) for text in texts):
        return _by_log(texts)
    if look.why == "reset":
        said = "; its log is not in RAM any more"
        if texts:
            last = texts[-1] if len(texts[-1]) <= _QUOTED else f"{texts[-1][:_QUOTED]}..."
            said = f"; its log ends with {last!r}"
        if not look.samples:
            what = "triple fault" if look.triple_fault else "the machine was reset"
            return Death(what=f"{what}{said}", place=None)
        place = _stands_in(look)
        where = "" if place else f" at {_rip(look):#x}, in no kernel's text"
        return Death(what=f"triple fault{where}{said}", place=place)
    if _stopped_for_good(look.samples):
        if any(_AT.match(text) for text in texts):
            return _by_registers_told(texts)
        place = _stands_in(look)
        where = "" if place else f" at {_rip(look):#x}, in no kernel's text"
        return Death(what=f"halted with interrupts off{where}", place=place)
    if fault := _faults_for_good(look):
        return fault
    return None


def sentence(look: LastLook, setting: Setting, console: Console) -> str | None:
    """ "incoming kernel: FUNCTION (file:line), what, before its console"; None where not dead."""
    found = death(look)
    if found is None:
        return None
    where = f"{look.place_of(found.place)}, " if found.place else ""
    early = "" if look.why == "reset" or has_console(console) else ", before its console"
    return f"{_whose(look, setting, console)}: {where}{found.what}{early}"


def standing(look: LastLook) -> str | None:
    """Where each CPU stood, in words, for a machine that is not known to be dead."""
    told = []
    for cpu in look.samples[-1].cpus if look.samples else ():
        names = [_name(look, sample, cpu.cpu.number) for sample in look.samples]
        if any(c.cpu.number == cpu.cpu.number and not c.cpu.halted for c in _all(look)):
            known = [*dict.fromkeys(look.place_of(n) for n in names if n)]
            more = f" and {len(known) - _PLACES} more" if len(known) > _PLACES else ""
            places = " and ".join(known[:_PLACES]) + more
            off = "" if cpu.cpu.interrupts else ", interrupts off"
            where = f"in {places}" if places else f"at {cpu.cpu.pc:#x}, in no kernel's text"
            told.append(f"CPU {cpu.cpu.number} was {where}{off}")
    return "; ".join(told) or None


def has_console(console: Console) -> bool:
    """Whether the kernel that was last started said a word on the console."""
    begun = console.kexecs[-1] if console.kexecs else 0
    return bool(console.boots and console.boots[-1].t >= begun)


def read_last_look(folder: Path) -> LastLook | None:
    """The look of a stored trial, None without one. Raises OSError or ValueError when damaged."""
    path = folder / FILE
    return read_json(path, _LOOK) if path.exists() else None


def _all(look: LastLook) -> list[CpuSample]:
    return [cpu for sample in look.samples for cpu in sample.cpus]


def _whose(look: LastLook, setting: Setting, console: Console) -> str:
    """By the note that was found; what runs before there is one belongs to the kernel it starts."""
    for name, kernel in (("incoming", setting.incoming), ("outgoing", setting.outgoing)):
        if look.build_id == kernel.build_id:
            return f"{name} kernel"
    return "incoming kernel" if console.kexecs else "outgoing kernel"


def _by_log(texts: Sequence[str]) -> Death:
    place = next((found[1] for text in texts if (found := _AT.match(text))), None)
    for pattern, word in ((_FAULT, "page fault at 0x"), (_BUG_AT, "BUG at "), (_PANIC, "panic: ")):
        if found := next((m for text in texts if (m := pattern.search(text))), None):
            return Death(what=f"{word}{found[1]}", place=place)
    first = next(text for text in texts if FATAL.search(text))
    return Death(what=strip_prefix(first), place=place)


def _by_registers_told(texts: Sequence[str]) -> Death:
    """An exception before there are handlers: registers are told (extable.c), the cause is not."""
    place = next((found[1] for text in texts if (found := _AT.match(text))), None)
    address = next((found[1] for text in texts if (found := _CR2.match(text))), "0")
    at = f", CR2 0x{address}" if address.strip("0") else ""
    return Death(what=f"early exception{at}", place=place)


def _stopped_for_good(samples: Sequence[Sample]) -> bool:
    """Every CPU halted with interrupts off, at the same instruction in two looks at least."""
    if len(samples) < 2 or not all(sample.cpus for sample in samples):
        return False
    stands = [[(c.cpu.number, c.cpu.pc) for c in sample.cpus] for sample in samples]
    return all(stand == stands[0] for stand in stands) and all(
        cpu.cpu.stopped for sample in samples for cpu in sample.cpus
    )


def _faults_for_good(look: LastLook) -> Death | None:
    """An instruction that faults, is returned to, and faults again, at the same address.

    Early in a boot page faults are answered by mapping what is missing (head64.c:
    do_early_exception), again and again where that does not help. Seen at the instruction, then
    in its exception, then at the instruction once more, and never anywhere else, with the same
    CR2: it makes no step. A machine that is paused, or slow, does not go to and fro.
    """
    seen = [c for s in look.samples for c in s.cpus if c.cpu.number == look.cpu]
    others = [c for s in look.samples for c in s.cpus if c.cpu.number != look.cpu]
    if len(seen) < FAULT_SAMPLES or not all(c.cpu.stopped for c in others):
        return None
    for rip in dict.fromkeys(c.cpu.pc for c in seen):
        at = [c.cpu.pc == rip for c in seen]
        turns = sum(a != b for a, b in itertools.pairwise(at))
        stays = all(here or rip in c.trapped for here, c in zip(at, seen, strict=True))
        same = {(c.cpu.fault_address, c.cpu.interrupts) for c in seen}
        if stays and turns >= _TURNS and len(same) == 1 and same.pop()[1] is False:
            name = look.names.get(f"{rip:#x}")
            return Death(
                what=f"page fault at {seen[0].cpu.fault_address:#x} again and again", place=name
            )
    return None


def _stands_in(look: LastLook) -> str | None:
    return _name(look, look.samples[-1], look.cpu)


def _rip(look: LastLook) -> int:
    cpus = look.samples[-1].cpus
    return next((c.cpu.pc for c in cpus if c.cpu.number == look.cpu), cpus[0].cpu.pc)


def _name(look: LastLook, sample: Sample, number: int | None) -> str | None:
    cpu = next((c.cpu for c in sample.cpus if c.cpu.number == number), None)
    return look.names.get(f"{cpu.pc:#x}") if cpu else None

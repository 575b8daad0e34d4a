# SPDX-License-Identifier: GPL-2.0-only
"""What the next kernel did with a record that was damaged: a pure function of what was recorded.

REFUSED     it said what is wrong, and did not take over what it is of: a panic that names it, or an
            error of the call that wanted it
TAKEN OVER  all was taken over, with the content, the properties and the page frames that it had;
            the damaged bytes have no meaning, and `harmless` says why
VIOLATION   anything else
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from common.record import console, dialogue
from common.record.cpus.last_look import death
from common.record.dialogue import Line, Side, Stored
from common.record.qemu import trace as qemu_trace
from common.suites.damage.harmless import harmless
from common.suites.damage.points import NONE
from common.suites.damage.record import Recorded

UNNOTICED = "another content"
Status = Literal["REFUSED", "TAKEN OVER", "VIOLATION"]
_PANIC = re.compile(r"Kernel panic - not syncing: (.*)")
# arch/x86/mm/extable.c:early_fixup_exception
_EARLY_DEATH = re.compile(r"PANIC: early exception")
# A panic that says what it is about; that of an exception does not.
_NAMED = re.compile(
    r"live ?update|\bLUO\b|\bKHO\b|incoming tree|preserved|handed over|was handed", re.IGNORECASE
)
# Who speaks of what is handed over, on the console.
_SPEAKERS = re.compile(
    r"(?:KHO|luo|kho_block|memfd_luo|liveupdate|PCI|pci \S+|vfio-pci \S+|iommufd?|DMAR)\b"
)
_PLAIN_WORDS = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{6,}\b|\d+")
_WARNING = re.compile(r"^WARNING: (.*)")
_NOT_DEADLY = re.compile(r"^WARNING: |Call Trace:")


class Verdict(Stored):
    """On one point. `why` is one sentence."""

    point: str
    status: Status
    why: str
    warned: str | None = None
    """What the kernel warned of with a stack, beside what it said."""


def judge(recorded: Recorded, reference: Recorded) -> Verdict:
    """The verdict on a point; `reference` is the life in which nothing was changed."""
    name = recorded.life.point
    recorded, reference = _trimmed(recorded), _trimmed(reference)
    warned = next(_warnings(recorded.console), None)
    if said := _death(recorded):
        return Verdict(point=name, status="VIOLATION", why=said, warned=warned)
    if (panic := _panic(recorded.console)) and (touched := _touched(recorded)):
        why = f"it touched the hardware before its panic ({touched}): {panic}"
        return Verdict(point=name, status="VIOLATION", why=why, warned=warned)
    if panic:
        return Verdict(point=name, status="REFUSED", why=f"panic: {panic}", warned=warned)
    if recorded.life.ended != "done":
        return Verdict(point=name, status="VIOLATION", why=_not_ended(recorded), warned=warned)
    status, why = _of_a_life(recorded, reference)
    return Verdict(point=name, status=status, why=why, warned=warned)


def as_it_should(reference: Recorded) -> str | None:
    """What is wrong with a life in which nothing was changed; None where all was taken over."""
    for when, look in reference.life.device.items():
        if when == "retrieved" and look.landed < look.sent:
            return f"the device no longer writes: {look.landed} of {look.sent} frames landed"
    verdict = judge(reference, reference)
    if verdict.warned:
        return f"WARNING: {verdict.warned}"
    return None if verdict.status == "TAKEN OVER" else verdict.why


def _said(lines: Iterable[Line]) -> Iterator[str]:
    return (console.strip_prefix(line.text) for line in lines)


def of_the_next_kernel(lines: Sequence[Line]) -> tuple[Line, ...]:
    """The console from the next kernel's first line on.

    Before it the kernel that leaves may complain that time has passed: QEMU sets back every clock
    of a machine but, on an emulated CPU, the TSC.
    """
    first = (n for n, line in enumerate(lines) if console.is_beginning(line.text))
    return tuple(lines[next(first, len(lines)) :])


def _trimmed(recorded: Recorded) -> Recorded:
    return recorded.model_copy(update={"console": of_the_next_kernel(recorded.console)})


def _death(recorded: Recorded) -> str | None:
    """An exception, an assertion, or a checker's complaint: not a panic that was meant."""
    for splat in console.parse(recorded.console).splats:
        if not _NOT_DEADLY.search(splat.text) and not _PANIC.search(splat.text):
            return splat.text + _where(recorded.console)
    for text in _said(recorded.console):
        if _EARLY_DEATH.search(text):
            return text
    for panic in _panics(recorded.console):
        if not _NAMED.search(panic):
            return f"panic that does not name what is wrong: {panic}"
    return None


def _where(lines: Iterable[Line]) -> str:
    for text in _said(lines):
        if match := re.match(r"RIP: [0-9a-f]+:(\S+?)\+0x", text):
            return f" in {match[1]}"
    return ""


def _panics(lines: Iterable[Line]) -> Iterator[str]:
    for text in _said(lines):
        if match := _PANIC.search(text):
            yield match[1]


def _panic(lines: Iterable[Line]) -> str | None:
    return next(_panics(lines), None)


def _warnings(lines: Iterable[Line]) -> Iterator[str]:
    for text in _said(lines):
        if match := _WARNING.match(text):
            yield match[1]


def _not_ended(recorded: Recorded) -> str:
    life = recorded.life
    if recorded.last_look and (found := death(recorded.last_look)):
        place = f" in {found.place.partition('+')[0]}" if found.place else ""
        return f"{found.what}{place}"
    if life.ended == "bail":
        return f"the workload could not go on: {life.detail}"
    return f"{life.ended}: {life.detail}"


def _incoming(recorded: Recorded) -> Side | None:
    return next(iter(dialogue.parse(recorded.dialogue)), None)


def _of_a_life(recorded: Recorded, reference: Recorded) -> tuple[Status, str]:
    side, before = _incoming(recorded), recorded.life.handed_over
    if side is None:
        return "VIOLATION", "the incoming side said nothing"
    faults = [
        *(f for key in before.files for f in _file_faults(recorded, side, key)),
        *_finish_faults(side),
        *_device_faults(recorded, side),
    ]
    if faults:
        return "VIOLATION", "; ".join(faults)
    refused = [*_refusals(side, reference)]
    words = _new_words(recorded, reference) or [*_warnings(recorded.console)]
    silent = [what for what, code in refused if code == errno.ENOENT]
    if silent and not words:
        return "VIOLATION", f"{silent[0]} is gone, without a message"
    if refused:
        told = ", ".join(f"{what}: {errno.errorcode.get(code, code)}" for what, code in refused)
        return "REFUSED", f"{words[0]} ({told})" if words else told
    if recorded.life.point == NONE:
        return "TAKEN OVER", "nothing was changed"
    if reason := harmless(recorded.life.point, devices=bool(recorded.life.handed_over.devices)):
        return "TAKEN OVER", reason
    if words:
        return "TAKEN OVER", f"it said: {words[0]}"
    return "VIOLATION", "taken over as if nothing had been changed"


def _file_faults(recorded: Recorded, side: Side, key: str) -> Iterator[str]:
    """What is not as it was of a file that was retrieved: the host's own look at its pages."""
    before = recorded.life.handed_over
    if side.facts.get(f"file.{key}") != "0":
        return
    seen, due = side.facts.get(f"properties.{key}"), before.properties[key]
    if seen != due:
        yield f"file {key}: position, size, seals {seen} where {due} was handed over, unnoticed"
    for when, looks in recorded.life.looks.items():
        look = looks.get(key)
        if look is None:
            yield f"file {key}: its pages could not be seen when {when}"
        elif (look.pages, look.sha256) != (before.files[key].pages, before.files[key].sha256):
            yield f"file {key}: {UNNOTICED} when {when}, unnoticed"
            return
        elif look.moved:
            yield f"file {key}: {look.moved} of its pages elsewhere when {when}"
            return


def _finish_faults(side: Side) -> Iterator[str]:
    """FINISH may fail; it may not be missing where there is a session."""
    for name, value in side.facts.items():
        session = name.removeprefix("session.")
        if session != name and value == "0" and f"finish.{session}" not in side.facts:
            yield f"session {session} was never finished"


def _device_faults(recorded: Recorded, side: Side) -> Iterator[str]:
    """What a device does that it must not: by the frames that the host found in RAM."""
    seen = recorded.life.device
    if not recorded.life.handed_over.devices:
        return
    for when, look in seen.items():
        if look.elsewhere:
            yield f"the device writes to memory that is not its own when {when}"
            return
    finished = [value for name, value in side.facts.items() if name.startswith("finish.")]
    taken = side.facts.get("device.attach") == "0"
    after = [when for when in ("finished", "closed", "end") if when in seen and seen[when].landed]
    if taken and "finished" not in after:
        yield "the device was taken over, and does not write any more"
    if taken:
        after = [when for when in after if when != "finished"]
    if "0" in finished and after:
        yield f"FINISH succeeded, and the device writes when {after[0]}"
    elif not finished and after:
        yield "the kernel is up, nothing was taken over, and the device writes"


def _touched(recorded: Recorded) -> str | None:
    """What the next kernel wrote to the devices that are handed over, or told their IOMMU.

    Its first line parts it from the kernel that leaves, which hands over the IOMMU's root after it
    has said that it starts another one.
    """
    life, first = recorded.life, next((line.t for line in recorded.console), 0)
    for event in qemu_trace.parse(recorded.trace, clock_offset_ns=life.clock_offset_ns):
        write = qemu_trace.config_write(event)
        of_devices = write is not None and write.bdf in life.handed_over.devices
        of_iommu = event.name in ("vtd_reg_dmar_root", "vtd_dmar_enable")
        if event.t >= first and (of_devices or of_iommu):
            return f"{event.name} {event.text}"
    return None


def _refusals(side: Side, reference: Recorded) -> Iterator[tuple[str, int]]:
    """Each call that gave an error where none is due: what it is, and the errno."""
    due = _incoming(reference)
    for name, value in (due.facts if due else {}).items():
        if name != "luo" and not name.startswith(("session.", "file.", "finish.", "device.")):
            continue
        if value == "0" and (seen := side.facts.get(name)) not in ("0", None):
            yield name.replace(".", " ", 1), -int(seen)


def _new_words(recorded: Recorded, reference: Recorded) -> list[str]:
    """What the kernel said of the handover that it does not say when nothing was changed."""
    usual = {_PLAIN_WORDS.sub("N", text) for text in _said(reference.console)}
    return [
        text
        for text in _said(recorded.console)
        if _SPEAKERS.match(text) and _PLAIN_WORDS.sub("N", text) not in usual
    ]

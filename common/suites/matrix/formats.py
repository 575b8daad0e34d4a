# SPDX-License-Identifier: GPL-2.0-only
"""Which kernel reads what another wrote: predicted from the names of formats, and tried. Pure.

A kernel's image names the formats that it knows (kernel/image/offers.py); in the machine's RAM
stand those that it has written (written.py). From these follows what a pair should do. What it
does the main run of its cell shows.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from common.checks.live_update import INCOMING
from common.errors import Exit, UsageError
from common.record.dialogue import Stored
from common.record.evidence import Trial
from common.record.setting import KernelFacts
from common.suites.matrix.cells import EXITS, Result, found, parts, worst

Ran = Literal[
    "hands over",
    "XFAIL",
    "refuses",
    "does not give",
    "corrupts",
    "crashes",
    "falls silent",
    "fails",
    "no result",
]
"""What a pair did. XFAIL: it handed over what it promises, which is less than the stage asks for.
"does not give": the outgoing kernel said no before its kexec."""
WORSE: tuple[Ran, ...] = ("corrupts", "crashes", "falls silent", "fails")
ASKED = "formats.json"

CARRIED: Mapping[str, tuple[str, ...]] = {
    "1": ("kho", "luo", "memfd"),
    "2": ("kho", "luo", "memfd", "vfio-pci", "pci"),
    "3": ("kho", "luo", "memfd", "vfio-pci", "iommufd", "pci", "iommu"),
}
"""What a stage's handover consists of, in the order in which an incoming kernel looks at it."""
SORTS: Mapping[str, tuple[str, ...]] = {
    "KHO": ("kho",),
    "sessions": ("luo",),
    "files": ("memfd", "vfio-pci", "iommufd"),
    "FLBs": ("pci", "iommu"),
}
"""What has such a format: KHO's tree, LUO's sessions, a handler of files, data of several files."""
_OF_EVERY_VM = {"kho", "luo", "memfd"}
# An oops ends in a panic, too.
_BY_ITSELF = re.compile(r"Kernel panic - not syncing: (?!Fatal exception|Attempted to kill)")
# The words of common/record/console.py's refusals, by what they are about.
_ABOUT = {"kho": "KHO:", "luo": "luo: LUO state is incompatible"}
_CONTENT = frozenset(
    {"ram_equal", "ram_size", "host_saw_ram", "guest_content", "guest_memory", "files_content"}
)
_RAN: Mapping[str, Ran] = {
    "PASS": "hands over",
    "XPASS": "hands over",
    "XFAIL": "XFAIL",
    "REFUSED": "refuses",
    "CRASHED": "crashes",
    "TIMEOUT": "falls silent",
}
_AS_PREDICTED: Mapping[str, tuple[Ran, ...]] = {
    "hands over": ("hands over", "XFAIL"),
    "refuses": ("refuses",),
    "does not give": ("does not give", "XFAIL"),
}


class Written(Stored):
    """What was found in RAM where a kernel of the matrix had left, in the machine of a stage."""

    stage: str
    kernel: str
    formats: tuple[str, ...] = ()
    why: str = ""
    """Why nothing was found; empty where something was."""


class Asked(Stored):
    """What a matrix was asked for."""

    command: str
    day: str
    """UTC, YYYY-MM-DD."""


class Kernel(Stored):
    """What is known of a kernel of the matrix in the machine of a stage."""

    stage: str
    name: str
    releases: tuple[str, ...]
    writes: tuple[str, ...]
    """Formats that the host found in RAM where it had left."""
    not_seen: str
    """Why it found none; empty where it did."""
    image: tuple[str, ...]
    """Names of formats in its image, or images."""
    took: tuple[str, ...]
    """Formats that others had written, and that it took over in a run of this matrix."""


class Pair(Stored):
    """A pair of kernels in the machine of a stage."""

    stage: str
    outgoing: str
    incoming: str
    predicted: str
    """"hands over", "refuses FORMAT", "does not give KIND, KIND"; empty where nothing is known."""
    ran: Ran
    agrees: bool | None
    """Whether it did what was predicted; None without a run or a prediction."""
    words: str
    """The kernel's own on a refusal; else the verdict's."""
    status: str
    """Of the run."""


class Formats(Stored):
    """All of it, as `matrix --formats json` prints it."""

    asked: tuple[Asked, ...]
    """The commands that ran it, or whose job this is a part of."""
    tools: tuple[str, ...]
    """What ran the machines."""
    sorts: Mapping[str, tuple[str, ...]] = SORTS
    """Which kinds of formats are of KHO, of sessions, of file handlers, of FLBs."""
    kernels: tuple[Kernel, ...]
    pairs: tuple[Pair, ...]


def kind(name: str) -> str:
    """What is in a format, whatever its version: "vfio-pci-live-v2" is "vfio-pci"."""
    return re.sub(r"-(?:live-)?v[0-9]+$|-liveupdate$", "", name)


def predicted(stage: str, gives: Collection[str], takes: Collection[str]) -> str:
    """What an outgoing kernel that gives these formats and one that takes those should do."""
    carried = CARRIED[stage]
    given = sorted((carried.index(kind(n)), n) for n in gives if kind(n) in carried)
    places = {place for place, _ in given}
    lacking = [one for place, one in enumerate(carried) if place not in places]
    unknown = next((name for _, name in given if name not in takes), None)
    # Without a VM's memory nothing is handed over; without its device the rest is.
    if unknown and not _OF_EVERY_VM & set(lacking):
        return f"refuses {unknown}"
    return f"does not give {', '.join(lacking)}" if lacking else "hands over"


def ran(result: Result) -> Ran:
    """What the main run of a cell came to."""
    main = result.main
    if main is None:
        return "no result"
    if result.status == "FAIL":
        if main.setting.ended == "bail" and not main.console.kexecs:
            return "does not give"
        return "corrupts" if _CONTENT & result.fell else "fails"
    if result.status == "REFUSED" and (end := _end(main)) and not _BY_ITSELF.match(end):
        return "crashes"
    return _RAN.get(result.status, "no result")


def words(result: Result) -> str:
    """The kernel's own words on a refusal, and whether it boots on; else the verdict's."""
    main, what = result.main, ran(result)
    if main and result.status == "REFUSED":
        said = main.console.refusals or (result.why,)
        return f"{'; '.join(dict.fromkeys(said))} ({_then(main)})"
    if main and what == "does not give":
        return main.setting.ended_detail
    return result.why


def _end(main: Trial) -> str:
    """What a kernel that died said first; empty where it did not."""
    return next((splat.text for splat in main.console.splats if splat.fatal), "")


def _then(main: Trial) -> str:
    if main.setting.ended in ("crashed", "rebooted"):
        end = _end(main)
        return f"it stops: {end}" if _BY_ITSELF.match(end) or not end else f"and crashes: {end}"
    return "it boots on" if main.side(INCOMING) else main.setting.ended


def agrees(foreseen: str, what: Ran, said: str) -> bool | None:
    """Whether a run was as predicted, a refusal for that format; None where one is not known."""
    if not foreseen or what == "no result":
        return None
    word = next(one for one in _AS_PREDICTED if foreseen.startswith(one))
    if what not in _AS_PREDICTED[word]:
        return False
    name = foreseen.removeprefix("refuses ")
    return word != "refuses" or _ABOUT.get(kind(name), f"'{name}'") in said


def formats(results: Iterable[Result], notes: Iterable[Written], asked: Sequence[Asked]) -> Formats:
    """What kernels and pairs came to; the cells of controls are none of them."""
    mains = [result for result in results if parts(result.cell)[2] == "main"]
    written = {(one.stage, one.kernel): one for one in sorted(notes, key=lambda n: not n.why)}
    pairs = tuple(_pair(result, written) for result in mains)
    hosts = [result.main.setting.host for result in mains if result.main]
    tools = [f"{h.accelerator}, {', '.join(map(' '.join, h.versions.items()))}" for h in hosts]
    return Formats(
        asked=tuple(dict.fromkeys(asked)),
        tools=tuple(dict.fromkeys(tools)),
        kernels=tuple(_kernels(mains, written, pairs)),
        pairs=pairs,
    )


_Notes = Mapping[tuple[str, str], Written]


def _pair(result: Result, written: _Notes) -> Pair:
    stage, pair, _ = parts(result.cell)
    outgoing, incoming = pair.split(" to ")
    foreseen = ""
    if result.main:
        sides = result.main.setting
        note = written.get((stage, outgoing))
        gives = note.formats if note and note.formats else sides.outgoing.offers or ()
        foreseen = predicted(stage, gives, sides.incoming.offers or ())
    what, said = ran(result), words(result)
    return Pair(
        stage=stage,
        outgoing=outgoing,
        incoming=incoming,
        predicted=foreseen,
        ran=what,
        agrees=agrees(foreseen, what, said),
        words=said,
        status=result.status,
    )


def _kernels(mains: Sequence[Result], written: _Notes, pairs: Sequence[Pair]) -> Iterable[Kernel]:
    facts: dict[tuple[str, str], list[KernelFacts]] = {}
    took: dict[tuple[str, str], list[str]] = {}
    for result, pair in zip(mains, pairs, strict=True):
        out, into = (pair.stage, pair.outgoing), (pair.stage, pair.incoming)
        setting = result.main.setting if result.main else None
        facts.setdefault(out, []).extend([setting.outgoing] if setting else [])
        facts.setdefault(into, []).extend([setting.incoming] if setting else [])
        if pair.ran == "hands over" and out in written:
            took.setdefault(into, []).extend(written[out].formats)
    for (stage, name), known in facts.items():
        note = written.get((stage, name), Written(stage=stage, kernel=name, why="nobody looked"))
        yield Kernel(
            stage=stage,
            name=name,
            releases=tuple(dict.fromkeys(one.release for one in known)),
            writes=note.formats,
            not_seen=note.why,
            image=tuple(sorted({offer for one in known for offer in one.offers or ()})),
            took=tuple(dict.fromkeys(took.get((stage, name), ()))),
        )


def exit_of(found_: Formats) -> Exit:
    """Of pairs that did as predicted PASS, whatever that was; else the worst of all."""
    return worst(_exit(pair) for pair in found_.pairs)


def _exit(pair: Pair) -> Exit:
    if pair.agrees:
        return Exit.PASS
    said = EXITS.get(pair.status, Exit.HARNESS)
    return Exit.FAIL if said is Exit.PASS else said


def write_written(folder: Path, note: Written) -> None:
    """The note on what a kernel writes, for `read_written`."""
    name = f"written.stage-{note.stage}.{note.kernel}.json"
    (folder / name).write_text(note.model_dump_json() + "\n")


def read_written(folders: Sequence[Path]) -> list[Written]:
    """All such notes in these folders. Raises UsageError for one that is damaged."""
    return [_read(Written, path) for path in found(folders, "written.stage-*.json")]


def write_asked(folder: Path, asked: Asked) -> None:
    """The note on what was asked for, for `read_asked`."""
    (folder / ASKED).write_text(asked.model_dump_json() + "\n")


def read_asked(folders: Sequence[Path]) -> list[Asked]:
    """All such notes in these folders. Raises UsageError where there is none."""
    there = found(folders, ASKED)
    if not there:
        raise UsageError(f"no {ASKED} is there: `matrix --formats` leaves it beside its cells")
    return [_read(Asked, path) for path in there]


M = TypeVar("M", bound=Stored)


def _read(model: type[M], path: Path) -> M:
    try:
        return model.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise UsageError(f"{path} is damaged") from None

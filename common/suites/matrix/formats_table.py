# SPDX-License-Identifier: GPL-2.0-only
"""The formats of kernels and the results of their pairs: table, JSON, page. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from tabulate import tabulate

from common.suites.matrix.formats import CARRIED, SORTS, WORSE, Formats, Kernel, Pair, kind
from common.text import printable, without_home

_PAGE = """<!-- SPDX-License-Identifier: GPL-2.0-only -->
<!-- Made by the commands below, and `matrix --formats page --collect DIR…`. -->
# Which kernel reads what another wrote

Each kernel hands over to each of the others and to itself. **Writes**: the formats that the host
found in the machine's RAM at that kernel's kexec, from KHO's device tree down to each file.
**Image**: the other formats that its image names. **Took**: the formats that it took over in one
of these runs. What one kernel writes and the other's image names gives a prediction for the pair;
the result is that of one live update with all of the stage's checks. Refusals are quoted in the
kernel's own words.
"""
_LEGEND = """\
*hands over*: the run passed. *XFAIL*: it handed over what it promises, which is less than the
stage asks for. *refuses F*: the incoming kernel does not know format F, and says so. *does not
give*: the outgoing kernel refused before its kexec. **Bold**: not as predicted, or worse than a
refusal."""


def text(found: Formats) -> str:
    """Two tables, and below them what was said on each pair that did not simply hand over."""
    kernels = [
        [one.stage, one.name, " ".join(one.releases), *map(_grouped, _lists(one))]
        for one in found.kernels
    ]
    pairs = [
        [one.stage, f"{one.outgoing} to {one.incoming}", one.predicted or "-", _ran(one)]
        for one in found.pairs
    ]
    lines = [
        tabulate(kernels, headers=["stage", "kernel", "release", "writes", "image", "took"]),
        "",
        tabulate(pairs, headers=["stage", "kernels", "predicted", "ran"]),
        "",
        *(f"{o.stage}: {o.name}: nothing seen in RAM: {o.not_seen}" for o in _unseen(found)),
        *(f"{o.stage}: {o.outgoing} to {o.incoming}: {o.ran}: {o.words}" for o in _told(found)),
    ]
    return printable("\n".join(lines).rstrip()) + "\n"


def json(found: Formats) -> str:
    """The same as one value; its fields are those of `Formats`."""
    return found.model_dump_json(indent=1) + "\n"


def page(found: Formats) -> str:
    """The same in Markdown: a grid for each stage, rows hand over, columns take."""
    days = ", ".join(dict.fromkeys(one.day for one in found.asked))
    lines = [_PAGE, f"{days}; {'; '.join(found.tools)}. {_count(found)}", ""]
    lines += [*(f"    {without_home(one.command)}" for one in found.asked), "", _LEGEND]
    for stage in dict.fromkeys(one.stage for one in found.pairs):
        kernels = [one for one in found.kernels if one.stage == stage]
        pairs = [one for one in found.pairs if one.stage == stage]
        carried = ", ".join(CARRIED[stage])
        lines += ["", f"## Stage {stage}: {carried}", "", *_kernels(kernels)]
        lines += ["", *_grid([one.name for one in kernels], pairs)]
        lines += ["", *_words(pairs)]
        lines += [
            f"- {one.name}: nothing was seen in RAM: {_cell(one.not_seen)}"
            for one in kernels
            if one.not_seen
        ]
    return "\n".join(lines).rstrip() + "\n"


def _count(found: Formats) -> str:
    ran = [one.ran for one in found.pairs]
    kinds = ", ".join(f"{ran.count(one)} {one}" for one in dict.fromkeys(ran))
    other = sum(one.agrees is False for one in found.pairs)
    worse = sum(one.ran in WORSE for one in found.pairs)
    return f"{len(ran)} pairs: {kinds}; {other} not as predicted, {worse} worse than a refusal."


def _lists(kernel: Kernel) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """Writes, image without that, took."""
    rest = [name for name in kernel.image if name not in kernel.writes]
    return kernel.writes, rest, kernel.took


def _grouped(names: Sequence[str]) -> str:
    """The names by what has such a format: "KHO kho-v4; sessions luo-v5; files memfd-v2"."""
    parts = []
    for sort, kinds in SORTS.items():
        if own := [name for name in names if kind(name) in kinds]:
            parts.append(f"{sort} {' '.join(own)}")
    return "; ".join(parts) or "-"


def _ran(pair: Pair) -> str:
    word = pair.status if pair.ran == "no result" else pair.ran
    return word if pair.agrees is not False else f"{word} (NOT AS PREDICTED)"


def _unseen(found: Formats) -> Iterator[Kernel]:
    return (one for one in found.kernels if one.not_seen)


def _told(found: Formats) -> Iterator[Pair]:
    return (one for one in found.pairs if one.ran != "hands over")


def _kernels(kernels: Iterable[Kernel]) -> Iterator[str]:
    yield "| kernel | release | writes | image | took |"
    yield "|---|---|---|---|---|"
    for one in kernels:
        cells = (", ".join(one.releases), *map(_grouped, _lists(one)))
        yield f"| {one.name} | {' | '.join(map(_cell, cells))} |"


def _grid(names: Sequence[str], pairs: Sequence[Pair]) -> Iterator[str]:
    by_names = {(one.outgoing, one.incoming): one for one in pairs}
    yield f"| from \\ to | {' | '.join(names)} |"
    yield "|---" * (len(names) + 1) + "|"
    for outgoing in names:
        row = [_square(by_names.get((outgoing, incoming))) for incoming in names]
        yield f"| **{outgoing}** | {' | '.join(row)} |"


def _square(pair: Pair | None) -> str:
    if pair is None:
        return ""
    did = pair.status if pair.ran == "no result" else pair.ran
    if pair.agrees and pair.predicted.startswith(did):
        did = pair.predicted
    elif pair.agrees is False:
        return f"**{_cell(did)}** (predicted: {_cell(pair.predicted)})"
    return f"**{did}**" if pair.ran in WORSE else _cell(did)


def _words(pairs: Iterable[Pair]) -> Iterator[str]:
    """Each thing that was said, once, with the pairs on which it was."""
    said: dict[tuple[str, str], list[str]] = {}
    for one in pairs:
        if one.ran != "hands over":
            said.setdefault((one.ran, one.words), []).append(f"{one.outgoing} to {one.incoming}")
    for (ran, what), on in said.items():
        yield f"- {ran}: `{_cell(what).replace('`', chr(39))}`: {', '.join(on)}"


def _cell(said: str) -> str:
    """On one line that ends no cell."""
    return " ".join(printable(without_home(said)).split()).replace("|", "\\|")


RENDERED: Mapping[str, Callable[[Formats], str]] = {"text": text, "json": json, "page": page}

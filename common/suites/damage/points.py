# SPDX-License-Identifier: GPL-2.0-only
"""The points of a sweep: which field of which record is changed, and how. Pure.

A point is RECORD.FIELD.KIND. Which bit is flipped depends on the seed and on the point's name
alone, so that a point is the same in every sweep with that seed, whatever else is tried.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from common.errors import UsageError
from common.machine.kho_tree import Read
from common.suites.damage.layouts import Field, Record, Sort

NONE = "none"
"""The point at which nothing is changed: what the others are held against."""
GUEST = "control.guest.byte"
"""The point at which a byte of a file's own content is: nothing in a kernel can notice, and the
host has to."""

# The address of other RAM, of a page or of something in it; and none of RAM.
_BITS_OF: dict[Sort, range] = {"address": range(12, 28), "frame": range(16)}
_KINDS: dict[Sort, tuple[str, ...]] = {
    "address": ("zero", "bit", "huge"),
    "frame": ("zero", "bit", "plus", "huge"),
    "count": ("zero", "one", "plus", "huge"),
    "number": ("bit", "huge"),
    "flags": ("zero", "bit", "huge"),
    "text": ("value", "full"),
    "unused": ("bit",),
    "bit": ("lost",),
}
WORDS = {
    "zero": "set to 0",
    "one": "set to 1",
    "plus": "one more",
    "huge": "all bits set",
    "bit": "one bit flipped",
    "value": "its last character another one",
    "full": "no end of the text",
    "lost": "the bit of a page that is preserved cleared",
    "tail": "the second half zeroed",
    "repeat": "overwritten with the one beside it",
    "swap": "exchanged with the one beside it",
    "byte": "a byte changed",
}
"""What a kind does to a field, or to a record as a whole."""
_NAME = re.compile(r"[a-z0-9-]+\.[A-Za-z0-9-]+\.(?:[a-z]+|\+\d+x[0-9a-f]{2})")


@dataclass(frozen=True)
class Change:
    """Bytes of the machine's RAM, before and after, at a physical address."""

    address: int
    before: bytes
    after: bytes


@dataclass(frozen=True)
class Point:
    """One damage."""

    name: str
    changes: tuple[Change, ...]


def checked_name(text: str) -> str:
    """A point's name as it was printed. Raises UsageError for what cannot be one."""
    if text not in (NONE, GUEST) and not _NAME.fullmatch(text):
        raise UsageError(f"--point {text}: give RECORD.FIELD.KIND, as memfd.folios.huge")
    return text


def points(records: tuple[Record, ...], read: Read, seed: int) -> list[Point]:
    """Every field of every record, damaged in each way that changes it."""
    return [
        Point(name, changes)
        for record in records
        for name, changes in _of(record, read, seed)
        if any(change.before != change.after for change in changes)
    ]


def random_points(records: tuple[Record, ...], read: Read, seed: int, count: int) -> list[Point]:
    """`count` bytes of records, changed at random: RECORD.FIELD.+OFFSETxBITS."""
    dice = random.Random(f"{seed}/random")
    found: dict[str, Point] = {}
    plain = [record for record in records if not record.name.startswith(("page-", "node"))]
    for _ in range(50 * count):  # so many, lest a small record be drawn for ever
        if len(found) == count:
            break
        record, flipped = dice.choice(plain), dice.randint(1, 255)
        offset = dice.randrange(record.size)
        name = f"{record.name}.{record.field_at(offset)}.+{offset}x{flipped:02x}"
        found[name] = Point(name, (_flipped(record, offset, flipped, read),))
    return list(found.values())


def point_named(name: str, records: tuple[Record, ...], read: Read, seed: int) -> Point:
    """The point of that name. Raises UsageError where these records have none."""
    if name == NONE:
        return Point(NONE, ())
    for point in points(records, read, seed):
        if point.name == name:
            return point
    record_name, _, kind = name.split(".")
    record = next((one for one in records if one.name == record_name), None)
    if record and (match := re.fullmatch(r"\+(\d+)x([0-9a-f]{2})", kind)):
        offset = int(match[1])
        if offset < record.size:
            return Point(name, (_flipped(record, offset, int(match[2], 16), read),))
    have = " ".join(dict.fromkeys(one.name for one in records))
    raise UsageError(f"--point {name}: no such point; the records are {have}")


def _flipped(record: Record, offset: int, bits: int, read: Read) -> Change:
    before = read(record.address + offset, 1)
    return Change(record.address + offset, before, bytes((before[0] ^ bits,)))


def _of(record: Record, read: Read, seed: int) -> Iterator[tuple[str, tuple[Change, ...]]]:
    for field in record.fields:
        for kind in _KINDS[field.sort]:
            name = f"{record.name}.{field.name}.{kind}"
            at = record.address + field.offset
            before = read(at, field.size)
            after = _after(before, field, kind, random.Random(f"{seed}/{name}"))
            if kind == "plus" and after == _number(1, field.size):
                continue  # which is what "one" does
            yield name, (Change(at, before, after),)
    if record.name.startswith(("page-", "node")):
        return
    own = read(record.address, record.size)
    half = record.size // 2
    if len(record.fields) > 2:  # of two fields it is one, which was zeroed
        tail = Change(record.address + half, own[half:], bytes(record.size - half))
        yield f"{record.name}.all.tail", (tail,)
    if record.neighbour is not None:
        other = read(record.neighbour, record.size)
        here = Change(record.address, own, other)
        yield f"{record.name}.all.repeat", (here,)
        yield f"{record.name}.all.swap", (here, Change(record.neighbour, other, own))


def _after(before: bytes, field: Field, kind: str, dice: random.Random) -> bytes:
    size = field.size
    value = int.from_bytes(before, "little")
    if kind == "zero":
        return bytes(size)
    if kind == "one":
        return _number(1, size)
    if kind == "plus":
        return _number((value + 1) % (1 << 8 * size), size)
    if kind == "huge":
        # An address stays one of a page: what is refused for its last bits is not looked at.
        return _number((1 << 8 * size) - (4096 if field.sort == "address" else 1), size)
    if kind == "bit":
        bit = dice.choice(_BITS_OF.get(field.sort, range(8 * size)))
        return _number(value ^ 1 << bit, size)
    if kind == "lost":
        return bytes((before[0] & ~(1 << field.bit),))
    if kind == "value":
        last = max(len(before.split(b"\0")[0]) - 1, 0)
        return before[:last] + bytes((before[last] ^ 1,)) + before[last + 1 :]
    assert kind == "full", kind
    return b"A" * size


def _number(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")

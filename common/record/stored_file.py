# SPDX-License-Identifier: GPL-2.0-only
"""Files of a run, which may be anybody's: bounded, regular, typed, or refused.

Every reader of a stored file reads it through here. What is damaged is a ValueError whose words
name file, line and field; the sizes are far above what a run leaves, and far below what hurts.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from common.record.dialogue import Line, Stored

MOST_BYTES = 32 << 20
"""Of one file, where no other bound is told."""
_MOST_LINES = 500_000
_FOREVER = 1 << 62

Stamp = Annotated[int, Field(strict=True, ge=0, lt=_FOREVER)]
"""The host's CLOCK_MONOTONIC in ns."""
Count = Annotated[int, Field(strict=True, ge=0, lt=_FOREVER)]
U64 = Annotated[int, Field(strict=True, ge=0, lt=1 << 64)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$", max_length=120)]
"""Of a trial, an option, an event: what can stand in a path and in a report."""
Text = Annotated[str, Field(max_length=1 << 20)]
Hex = Annotated[str, Field(pattern=r"^(?:[0-9a-f]{2})*$", max_length=1 << 16)]
"""Whole bytes."""
KhoSeen = dict[Name, dict[Annotated[str, Field(pattern="^[0-9]{1,2}$")], Count]]
"""By rendezvous: pieces of memory registered with KHO, of each order (2^order pages)."""


class Strict(Stored):
    """Base of what is read from a file of the run: no value is taken for another type's."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


T = TypeVar("T")


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """A regular file's bytes. Raises ValueError for what is none, or is larger; OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path.name} is not a regular file")
        if found.st_size > most:
            raise ValueError(
                f"{path.name} has {found.st_size >> 20} MiB, and {most >> 20} is the most that a"
                " run leaves"
            )
        return file.read(most)


def read_text(path: Path, most: int = MOST_BYTES, *, errors: str = "strict") -> str:
    """The same as text, its line ends as they are."""
    try:
        return read_bytes(path, most).decode("utf-8", errors)
    except UnicodeDecodeError:
        raise ValueError(f"{path.name} is not UTF-8") from None


def read_json(path: Path, adapter: TypeAdapter[T]) -> T:
    """The one JSON value in the file."""
    try:
        return adapter.validate_json(read_bytes(path))
    except ValidationError as error:
        raise ValueError(f"{path.name}: {first_fault(error)}") from None


def read_rows(path: Path, adapter: TypeAdapter[list[T]]) -> list[T]:
    """A JSON value a line; `adapter` is of the list of them."""
    # Not splitlines(): a console may have said U+2028, which JSON leaves as it is.
    lines = read_text(path).removesuffix("\n").split("\n")
    if lines == [""]:
        return []
    if len(lines) > _MOST_LINES:
        raise ValueError(f"{path.name} has {len(lines)} lines, more than a run leaves")
    try:  # as one array, which is several times as fast as line by line
        rows = adapter.validate_json(f"[{','.join(lines)}]")
    except ValidationError as error:
        raise ValueError(f"{path.name}{_fault_of(lines, error)}") from None
    if len(rows) != len(lines):
        raise ValueError(f"{path.name}: {len(lines)} lines hold {len(rows)} values")
    return rows


def read_stamped(path: Path) -> tuple[Line, ...]:
    """The lines of a stored NAME.jsonl. Raises ValueError on damaged ones, OSError."""
    rows = read_rows(path, _STAMPED)
    in_order(path.name, [t for t, _ in rows])
    return tuple(map(Line._make, rows))


_STAMPED = TypeAdapter(list[tuple[Stamp, str]])


def in_order(name: str, stamps: Sequence[int]) -> None:
    """Raises ValueError where a stamp is earlier than the one before it."""
    if any(a > b for a, b in pairwise(stamps)):
        number = next(n for n, (a, b) in enumerate(pairwise(stamps), start=2) if a > b)
        raise ValueError(f"{name}, entry {number}, is stamped before the one above it")


def first_fault(error: ValidationError, *, skip: int = 0) -> str:
    """Where the first fault is, and what, in words; `skip` parts of the place are told already."""
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(map(str, fault["loc"][skip:]))
    return f"{place}: {fault['msg']}" if place else str(fault["msg"])


def _fault_of(lines: Sequence[str], error: ValidationError) -> str:
    """The number of the first line that is wrong, and what is."""
    place = error.errors(include_input=False)[0]["loc"]
    if place and isinstance(place[0], int):
        return f", line {place[0] + 1}: {first_fault(error, skip=1)}"
    for number, line in enumerate(lines, start=1):
        try:
            from_json(line)
        except ValueError as found:
            return f", line {number}: Invalid JSON: {found}"
    return f": {first_fault(error)}"

# SPDX-License-Identifier: GPL-2.0-only
"""What is kept of a dead kernel's stack."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from common.record.cpus.kernel_symbols import KernelSymbols
from common.run.post_mortem.death_watch import frames, stack_from

END = 0x8000


def mapped_until(end: int) -> Callable[[int, int], bytes | None]:
    return lambda at, length: bytes(length) if at + length <= end else None


@pytest.mark.parametrize("pointer", [0x4000, 0x7000, 0x7CF8, 0x7FF8])
def test_a_stack_is_read_to_its_end(pointer: int) -> None:
    """No more: after it comes a page that is not mapped, or somebody else's memory."""
    assert len(stack_from(pointer, mapped_until(1 << 20))) == END - pointer
    assert len(stack_from(pointer, mapped_until(END))) == END - pointer


def test_a_stack_that_ends_early_is_kept_as_far_as_it_goes() -> None:
    assert len(stack_from(0x5000, mapped_until(0x6000))) == 0x1000
    assert stack_from(0x5000, lambda _at, _length: None) == b""


class Named(KernelSymbols):
    """Each word is the address of a function of its own."""

    def __init__(self) -> None:
        pass

    def function_at(self, address: int) -> str | None:
        return f"f{address}+0x1/0x2" if address else None


@pytest.mark.parametrize(
    ("count", "kept"), [(24, [*range(1, 25)]), (40, [*range(1, 13), None, *range(29, 41)])]
)
def test_the_innermost_and_the_outermost_functions_are_named(
    count: int, kept: list[int | None]
) -> None:
    words = b"".join(n.to_bytes(8, "little") for n in range(1, count + 1))
    names = [f"f{n}+0x1/0x2" if n else f"... {count - 24} more ..." for n in kept]
    assert list(frames(words, Named(), 0)) == names

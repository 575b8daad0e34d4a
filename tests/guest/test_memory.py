# SPDX-License-Identifier: GPL-2.0-only
"""What the host finds in the guest's pages, on memory that was made up."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from common.guest.evidence import RamEvidence
from common.guest.memory import (
    PAGE,
    SAMPLES,
    VcpuBlock,
    count_written,
    page_content,
    pattern,
    vcpu_blocks,
)
from common.judge.verdict import judge_trial
from common.record.evidence import Trial
from common.stage.loading import load_stage
from tests.recorded_trial import with_ram

NONCE = 0x1122334455667788
FIRST, PAGES = 256, 2 * SAMPLES
Recorded = Callable[..., Trial]


def memory(*, version: int = 3, cursor: int = 100, vcpus: int = 1) -> dict[int, bytes]:
    """A guest's pages by number: blocks from page 128 on, and what the vCPUs have written."""
    pages: dict[int, bytes] = {}
    for vcpu in range(vcpus):
        first = FIRST + vcpu * PAGES
        block = bytearray(PAGE)
        struct.pack_into("<5Q", block, 0, 1, vcpu, NONCE, first, PAGES)
        for at, value in ((80, version), (144, cursor), (152, version * PAGES + cursor)):
            struct.pack_into("<Q", block, at, value)
        pages[128 + 8 * vcpu] = bytes(block)
        for page in range(PAGES):
            content = page_content(NONCE, first + page, version + (page < cursor))
            pages[first + page] = content
    return pages


def reader(pages: dict[int, bytes]) -> Callable[[int], bytes]:
    return lambda page: pages.get(page, bytes(PAGE))


def test_what_a_guest_has_written_is_found() -> None:
    read = reader(memory(vcpus=2))
    blocks = vcpu_blocks(read)
    assert blocks[1] == VcpuBlock(NONCE, FIRST + PAGES, PAGES, 3, 100, 3 * PAGES + 100)
    # one of the pages is the one that is being written
    assert [count_written(block, read) for block in blocks] == [(PAGES - 1, PAGES - 1)] * 2


@pytest.mark.parametrize("page", [0, 50, 98, 99, 101, 102, PAGES - 1])
def test_a_page_that_is_not_the_guests_is_not_counted(page: int) -> None:
    pages = memory()
    for other in (bytes(PAGE), page_content(NONCE, FIRST + page, 2), b""):
        read = reader(pages | {FIRST + page: other})
        (block,) = vcpu_blocks(read)
        assert count_written(block, read) == (PAGES - 1, PAGES - 2)


def test_no_guest_is_no_guest() -> None:
    assert vcpu_blocks(reader({})) == []
    assert vcpu_blocks(lambda _page: b"") == []


def test_content_depends_on_page_version_and_run() -> None:
    firsts = {pattern(n, p, v) for n in (1, 2) for p in (1, 2) for v in (1, 2)}
    assert len(firsts) == 8


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, "PASS"),
        ({"counter": 0}, "FAIL"),
        ({"as_written": 255}, "FAIL"),
        ({"nonce": 1}, "FAIL"),
        ({"pages": 0, "as_written": 0}, "FAIL"),
        (None, "NO DATA"),
    ],
)
def test_the_check(change: dict[str, int] | None, status: str, recorded: Recorded) -> None:
    """A copy stands still, a frame of somebody else's holds something else."""
    trial = recorded("main")
    ram = trial.seen(RamEvidence).ram
    (look,) = ram.guest["watched"]
    watched = () if change is None else (look.model_copy(update=change),)
    edited = with_ram(trial, guest={**ram.guest, "watched": watched})
    answers = {a.check: a.outcome.status for a in judge_trial(edited, load_stage(1)).answers}
    assert answers.pop("host_saw_guest") == status
    answers.pop("host_saw_guest_run")  # asks for the same looks, among other things
    assert set(answers.values()) == {"PASS"}

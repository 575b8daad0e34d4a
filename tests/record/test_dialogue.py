# SPDX-License-Identifier: GPL-2.0-only
"""The dialogue parser: whole, truncated and damaged dialogues."""

from __future__ import annotations

import random

from common.record.dialogue import Line, awaited, parse

WHOLE = """\
KTAP version 1
1..2
# side=outgoing
ok 1 first
# t.paused=123
# await pause
not ok 2 second
# kexec
KTAP version 1
1..1
# side=incoming
ok 1 third # SKIP no such thing here
# done"""


def lines(text: str) -> list[Line]:
    return [Line(t=n, text=line) for n, line in enumerate(text.splitlines())]


def test_whole_dialogue() -> None:
    before, after = parse(lines(WHOLE))
    assert (before.name, before.end, before.planned) == ("outgoing", "kexec", 2)
    assert [(r.name, r.ok) for r in before.results] == [("first", True), ("second", False)]
    assert before.number("t.paused") == 123
    assert before.stamps["await.pause"] == 5
    assert (after.name, after.end) == ("incoming", "done")


def test_a_skipped_result_is_not_ok() -> None:
    _, after = parse(lines(WHOLE))
    assert after.results[0].skipped == "no such thing here"
    assert not after.results[0].ok


def test_every_truncation_is_open_and_never_raises() -> None:
    whole = lines(WHOLE)
    for cut in range(len(whole)):
        sides = parse(whole[:cut])
        assert all(side.end in ("open", "kexec") for side in sides)
    assert parse(whole)[-1].end == "done"


def test_garbage_is_kept_not_skipped() -> None:
    (side,) = parse(lines("KTAP version 1\n\\x00\\xff~~\n# side=outgoing"))
    assert side.garbage == ("\\x00\\xff~~",)


def test_a_fact_given_twice_is_garbage_and_the_first_stands() -> None:
    (side,) = parse(lines("KTAP version 1\n# finish=0\n# finish=-16"))
    assert side.facts["finish"] == "0"
    assert side.garbage == ("fact given twice: # finish=-16",)


def test_random_bytes_never_raise() -> None:
    rng = random.Random(7)
    alphabet = "KTAP version1.#ok not=\n\\xff await bail done"
    for _ in range(300):
        parse(lines("".join(rng.choices(alphabet, k=200))))


def test_bail_keeps_its_reason() -> None:
    (side,) = parse(lines("KTAP version 1\n# bail x.c:1: open = -2 (ENOENT)"))
    assert (side.end, side.bail) == ("bail", "x.c:1: open = -2 (ENOENT)")


def test_awaited() -> None:
    assert awaited("# await pause") == "pause"
    assert awaited("# awaiting=3") is None

# SPDX-License-Identifier: GPL-2.0-only
"""What the log of a guest's peer shows."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from common.guest.talk import Entry, PeerProcess, Talk, frames_within, talk_of

STOPPED, RESUMED = 100, 200


def entries(*rows: tuple[int, str, int]) -> list[Entry]:
    return [Entry.model_validate({"t": t, "what": what, "number": n}) for t, what, n in rows]


def talk(*rows: tuple[int, str, int]) -> Talk:
    found = talk_of(entries((1, "opened", 1), *rows), STOPPED, RESUMED)
    assert found
    return found


@pytest.mark.parametrize(
    ("asked", "answered", "part"),
    [(10, 20, "before"), (90, 220, "across"), (150, 210, "across"), (210, 220, "after")],
)
def test_an_answer_is_of_before_of_the_time_between_or_of_after(
    asked: int, answered: int, part: str
) -> None:
    found = talk((asked, "asked", 0), (answered, "answered", 0))
    parts = {"before": found.before, "across": found.across, "after": found.after}
    assert [key for key, count in parts.items() if count] == [part]
    assert found.wrong == 0


def test_an_answer_to_no_question_is_wrong() -> None:
    assert talk((10, "answered", 3)).wrong == 1


def test_what_went_wrong_is_counted() -> None:
    found = talk((10, "wrong", 1), (20, "damaged", 1), (30, "ended", 1), (40, "opened", 2))
    assert (found.wrong, found.damaged, found.ended, found.connections) == (1, 1, 1, 2)


def test_of_a_guest_that_never_stopped_all_is_before() -> None:
    found = talk_of(entries((1, "asked", 0), (2, "answered", 0)), None, None)
    assert found and found.before == 1
    assert talk_of([], STOPPED, RESUMED) is None


def test_frames_are_counted_between_two_times() -> None:
    rows = entries((1, "frame", 60), (2, "asked", 0), (3, "frame", 310), (9, "frame", 60))
    assert frames_within(rows, 1, 3) == 2


def test_the_process_answers_until_it_is_held(tmp_path: Path) -> None:
    """By ARP, which it always has an answer to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        device.bind(("127.0.0.1", 0))
        device.settimeout(20)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        peer = PeerProcess(tmp_path, nonce="7", port=port, device_port=device.getsockname()[1])
        try:
            ask = bytes.fromhex("ffffffffffff525400000001080600010800060400015254000000010a090802")
            ask += bytes(6) + bytes((10, 9, 8, 1))
            device.settimeout(0.2)
            for _ in range(100):  # it takes a while to start
                device.sendto(ask, ("127.0.0.1", port))
                try:
                    assert device.recv(1024)[:6] == ask[6:12]
                except (TimeoutError, ConnectionRefusedError):
                    continue
                break
            peer.tell("hold")
        finally:
            peer.close()
    rows = [json.loads(line) for line in (tmp_path / "peer.jsonl").read_text().splitlines()]
    assert {row["what"] for row in rows} == {"frame"}

# SPDX-License-Identifier: GPL-2.0-only
"""The judge of frame logs: what lands, what is missing, and what was only queued."""

from __future__ import annotations

import array
import zlib
from pathlib import Path

import pytest

from common.dma.frames import (
    CRC,
    FRAME,
    HEADER_LENGTH,
    MAGIC,
    Landing,
    build,
    judge,
    look_at,
    read_landed,
    read_sent,
    write_landed,
    write_sent,
)

MS = 1_000_000


def steady(count: int, *, latency: int = MS) -> tuple[list[int], list[Landing]]:
    """One frame a millisecond, each seen `latency` ns after it was sent."""
    sent = [1000 * MS + n * MS for n in range(count)]
    return sent, [Landing(n, t, t + latency) for n, t in enumerate(sent)]


def test_a_frame_carries_what_the_watcher_looks_for() -> None:
    frame = build(0xABCD, 7, 123456)
    body = frame[HEADER_LENGTH : HEADER_LENGTH + FRAME.size]
    assert FRAME.unpack(body) == (MAGIC, 0xABCD, 7, 123456)
    assert CRC.unpack_from(frame, HEADER_LENGTH + FRAME.size)[0] == zlib.crc32(body)
    assert len(frame) >= 60, "shorter ones are padded by the device, or dropped"


def test_logs_are_read_as_written(tmp_path: Path) -> None:
    write_sent(tmp_path / "sent", array.array("Q", [5, 6]))
    write_landed(tmp_path / "landed", array.array("Q", [0, 5, 8, 1, 6, 9]))
    assert read_sent(tmp_path / "sent") == [5, 6]
    assert read_landed(tmp_path / "landed") == [Landing(0, 5, 8), Landing(1, 6, 9)]


@pytest.mark.parametrize("size", [4, 8, 20])
def test_half_a_record_is_refused(tmp_path: Path, size: int) -> None:
    (tmp_path / "landed").write_bytes(bytes(size))
    with pytest.raises(ValueError, match="ends within"):
        read_landed(tmp_path / "landed")


def test_a_steady_stream_has_no_silence() -> None:
    sent, landed = steady(1000)
    report = judge(sent, landed, (sent[300], sent[600]), {})
    assert (report.sent, report.landed, report.missing, report.repeated) == (1000, 1000, 0, 0)
    assert report.gap
    assert report.gap.silence_ms == pytest.approx(1)
    assert report.gap.latency_ms == pytest.approx(1)
    assert report.rate == pytest.approx(1000)


def test_a_device_that_stops_is_silent() -> None:
    sent, landed = steady(1000)
    report = judge(sent, landed[:350], (sent[300], sent[600]), {})
    assert report.gap
    assert report.gap.silence_ms == pytest.approx(250, abs=2)
    assert (report.missing, report.missing_first[:2]) == (650, (350, 351))


def test_as_many_missing_frames_are_named_as_a_stage_may_want() -> None:
    """One in 250 of a run that takes minutes, as with KASAN."""
    sent, landed = steady(50_000)
    kept = [frame for frame in landed if frame.number % 250]
    assert judge(sent, kept, None, {}).missing_first == tuple(range(0, 50_000, 250))


def test_frames_that_were_queued_and_flushed_show_no_dma() -> None:
    """Nothing is lost, and the gap is silent all the same: the flush comes after it."""
    sent, landed = steady(1000)
    flush = sent[700]
    queued = [
        Landing(
            frame.number, frame.sent, max(frame.seen, flush) if frame.number >= 300 else frame.seen
        )
        for frame in landed
    ]
    report = judge(sent, queued, (sent[300], sent[600]), {})
    assert report.missing == 0
    assert report.gap
    assert report.gap.silence_ms > 290
    assert report.whole.latency_ms == pytest.approx(400, abs=2)


@pytest.mark.parametrize(("off", "on"), [(99, 1), (19, 1), (7, 3)])
def test_a_device_that_writes_now_and_then_is_held_up_for_most_of_the_time(
    off: int, on: int
) -> None:
    sent, landed = steady(4000)
    bursts = [
        Landing(f.number, f.sent, f.sent + (max(0, off - f.number % (off + on)) + 1) * MS)
        for f in landed
    ]
    whole = judge(sent, bursts, (sent[300], sent[600]), {}).whole
    assert whole.silence_ms <= off + 2
    assert whole.stall_ms <= off + 2
    assert whole.stalled_ms / whole.ms == pytest.approx((off + 1) / (off + on), abs=0.1)
    steadily = judge(sent, landed, (sent[300], sent[600]), {}).whole
    assert steadily.stalled_ms == 0


def test_a_gap_without_a_landing_is_one_silence() -> None:
    sent, landed = steady(100)
    window = look_at(sent, landed, sent[-1] + 10 * MS, sent[-1] + 60 * MS, {})
    assert window.landed == 0
    assert window.silence_ms == pytest.approx(50)


def test_a_lost_frame_is_named() -> None:
    sent, landed = steady(100)
    report = judge(sent, landed[:40] + landed[41:], None, {})
    assert (report.missing, report.missing_first, report.gap) == (1, (40,), None)


def test_a_frame_seen_twice_is_counted() -> None:
    sent, landed = steady(100)
    assert judge(sent, [*landed, landed[-1]], None, {}).repeated == 1


def test_a_send_time_that_is_not_the_senders_is_foreign() -> None:
    sent, landed = steady(100)
    landed[50] = Landing(50, sent[50] + 1, landed[50].seen)
    landed.append(Landing(4711, sent[-1], landed[-1].seen))
    assert judge(sent, landed, None, {}).foreign == 2


def test_no_frames_at_all_is_no_error() -> None:
    report = judge([], [], (1, 2), {})
    assert (report.sent, report.landed, report.rate) == (0, 0, 0.0)

# SPDX-License-Identifier: GPL-2.0-only
"""Stage 2's judge, on a recorded trial and on damaged copies of it.

tests/recorded/vfio_noiommu/ holds the raw files of a real trial at 100 frames a second (see
its README). Each test edits one piece of evidence and asks whether the right check falls.
"""

from __future__ import annotations

import array
import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest

from common.dma.frames import Landing, read_landed, read_sent, write_landed, write_sent
from common.judge.verdict import judge_trial
from common.record import console
from common.record.evidence import Trial
from common.record.stored_file import read_stamped
from common.stage.loading import load_stage
from tests.recorded_trial import RECORDED, Edit, RecordedTrial, added, fallen_checks, said

STAGE = load_stage(2)
MAIN = RECORDED / "vfio_noiommu" / "main"


@pytest.fixture
def trial(tmp_path: Path) -> Callable[..., Trial]:
    """The recorded trial, after an edit had its folder."""
    return RecordedTrial(STAGE, MAIN, tmp_path)


def fallen(trial: Trial) -> set[str]:
    return fallen_checks(trial, STAGE)


def kexec(folder: Path) -> int:
    """The host's stamp of "Starting new kernel", in ns."""
    return console.parse(read_stamped(folder / "console.jsonl")).kexecs[0]


def landing(change: Callable[[list[Landing], int], list[Landing]]) -> Edit:
    """Landings of the device, changed; the second argument is the stamp of the kexec."""

    def edit(folder: Path) -> None:
        path = folder / "device-landed.bin"
        rows: array.array[int] = array.array("Q")
        for one in change(read_landed(path), kexec(folder)):
            rows.extend((one.number, one.sent, one.seen))
        write_landed(path, rows)

    return edit


def traced(event: str, *, ms: int) -> Edit:
    """A line more in QEMU's trace, `ms` after the kexec."""

    def edit(folder: Path) -> None:
        setting = json.loads((folder / "trial.json").read_text())
        us = (kexec(folder) + ms * 1_000_000 + setting["clock_offset_ns"]) // 1000
        path = folder / "qemu-trace.log"
        line = f"1@{us // 1_000_000}.{us % 1_000_000:06}:{event}\n"
        path.write_text(path.read_text() + line)

    return edit


def test_the_recording_passes(trial: Callable[..., Trial]) -> None:
    verdict = judge_trial(trial(), STAGE)
    assert (verdict.status, verdict.why) == ("PASS", f"{len(STAGE.checks)} checks")


def test_a_silent_gap_falls_though_nothing_is_lost(trial: Callable[..., Trial]) -> None:
    """QEMU's queue: all frames of a second and a half come at once, at its end."""

    def queue(landed: list[Landing], begin: int) -> list[Landing]:
        end = begin + 1_500_000_000
        return [
            Landing(one.number, one.sent, end) if begin < one.seen < end else one for one in landed
        ]

    assert fallen(trial(landing(queue))) == {
        "dma_in_gap",
        "no_silence",
        "never_held_up",
    }


def test_one_lost_frame_falls(trial: Callable[..., Trial]) -> None:
    def lose(landed: list[Landing], _begin: int) -> list[Landing]:
        return landed[:50] + landed[51:]

    assert fallen(trial(landing(lose))) == {"host_saw_all"}


def test_frames_of_another_sender_fall(trial: Callable[..., Trial]) -> None:
    def change(landed: list[Landing], _begin: int) -> list[Landing]:
        return [Landing(landed[0].number, landed[0].sent + 1, landed[0].seen), *landed[1:]]

    assert fallen(trial(landing(change))) == {"host_saw_all"}


@pytest.mark.parametrize(
    ("event", "ms", "checks"),
    [
        ("pci_cfg_write igb 03:00.0 @0x4 <- 0x503", -20, {"bus_mastering_kept"}),
        ("pci_cfg_write pcie-root-port 00:02.0 @0x4 <- 0x3", 500, {"bus_mastering_kept"}),
        ("pci_cfg_write xio3130-downstream 02:00.0 @0x4 <- 0x3", -9, {"bus_mastering_kept"}),
        ("pci_cfg_write xio3130-downstream 02:01.0 @0x4 <- 0x3", -9, set()),
        ("pci_cfg_write igb 03:00.0 @0x4 <- 0x507", 500, set()),
        ("pci_pm_transition igb 03:00.0 PM transition D0->D3", 900, {"stayed_in_d0"}),
        ("pci_pm_transition igb 04:00.0 PM transition D0->D3", 900, set()),
        ("e1000e_core_ctrl_sw_reset Doing SW reset", 900, {"no_device_reset"}),
        ("e1000e_cb_qdev_reset_hold E1000E qdev reset hold", 900, {"no_device_reset"}),
        (
            "e1000x_rx_can_recv_disabled link_up: 1, rx_enabled 0, pci_master 1",
            900,
            {"never_gated"},
        ),
        (
            "e1000x_rx_link_down Received packet dropped because the link is down",
            9,
            {"never_gated"},
        ),
    ],
)
def test_each_event_in_the_trace(
    trial: Callable[..., Trial], event: str, ms: int, checks: set[str]
) -> None:
    assert fallen(trial(traced(event, ms=ms))) == checks


def test_an_empty_trace_is_no_answer(trial: Callable[..., Trial]) -> None:
    def empty(folder: Path) -> None:
        (folder / "qemu-trace.log").write_text("")

    assert {"no_device_reset", "bus_mastering_kept", "stayed_in_d0", "never_gated"} <= fallen(
        trial(empty)
    )


@pytest.mark.parametrize(
    ("old", "new", "checks"),
    [
        ("guest.frames.damaged=0", "guest.frames.damaged=1", {"guest_saw_all"}),
        ("guest.frames.lost=0", "guest.frames.lost=2", {"guest_saw_all"}),
        ("device.good_packets=", "device.good_packets=1", {"device_counted_all"}),
        ("scratch=5afe1234", "scratch=00000000", {"same_registers"}),
        ("device.config=8680c910", "device.config=8680c911", {"same_config"}),
        ("retrieve.device=0", "retrieve.device=-2", {"device_retrieved"}),
        ("pfn.moved=0", "pfn.moved=1", {"same_pages"}),
        ("finish=0", "finish=-16", {"session_finished"}),
        ("kernel.taint_at_end=64", "kernel.taint_at_end=576", {"not_tainted"}),
        ("0 after, 0 wrong", "0 after, 1 wrong", {"nothing_taken_away"}),
        ("races.unbind_port=2 rounds", "races.nothing=2 rounds", {"nothing_taken_away"}),
        ("races.unbind=2 rounds", "races.unbind=0 rounds", {"nothing_taken_away"}),
        (
            "aborts.killed=2 times, 0 silent",
            "aborts.killed=2 times, 1 silent",
            {"aborts_unnoticed"},
        ),
        ("write_d3hot", "write_d4hot", {"incoming_rules"}),
    ],
)
def test_each_piece_of_the_dialogue(
    trial: Callable[..., Trial], old: str, new: str, checks: set[str]
) -> None:
    assert fallen(trial(said(old, new))) == checks


def test_a_head_that_jumps_falls(trial: Callable[..., Trial]) -> None:
    assert fallen(trial(added("device.head", 400))) == {"head_went_on"}


def test_a_device_at_work_for_a_moment_now_and_then_falls(trial: Callable[..., Trial]) -> None:
    """It writes every 90 ms: never silent for long, and hardly ever at work."""

    def bursts(landed: list[Landing], _begin: int) -> list[Landing]:
        return [
            Landing(one.number, one.sent, one.seen + 90_000_000 - one.seen % 90_000_000)
            for one in landed
        ]

    assert fallen(trial(landing(bursts))) == {"never_held_up"}


def test_a_second_device_that_goes_on_falls(trial: Callable[..., Trial]) -> None:
    assert "other_silent" in fallen(trial(_other_goes_on))


def test_a_second_device_that_was_silent_before_the_kexec_falls(
    trial: Callable[..., Trial],
) -> None:
    """What was silent already shows nothing about the kexec."""

    def fall_silent(folder: Path) -> None:
        sent = read_sent(folder / "other-sent.bin")
        early = [sent[0] - 500_000_000 * n for n in range(6, 0, -1)]
        write_sent(folder / "other-sent.bin", array.array("Q", [*early, *sent]))
        rows = [(number, t, t + 1) for number, t in enumerate(early[:3])]
        write_landed(folder / "other-landed.bin", array.array("Q", chain.from_iterable(rows)))

    assert fallen(trial(fall_silent)) == {"other_silent"}


def _other_goes_on(folder: Path) -> None:
    (folder / "other-landed.bin").write_bytes((folder / "device-landed.bin").read_bytes())


@pytest.mark.parametrize(
    ("edit", "status"), [(lambda _folder: None, "PASS"), (_other_goes_on, "FAIL")]
)
def test_finish_stops_what_nobody_retrieved(
    trial: Callable[..., Trial], edit: Edit, status: str
) -> None:
    """In the recording the second device is silent from the kexec on."""
    stopped = {control.name: control for control in STAGE.controls}["other-preserved"].holds[0]
    assert stopped.ask(trial(edit)).status == status


def test_half_a_frame_log_is_a_damaged_trial(trial: Callable[..., Trial]) -> None:
    def cut(folder: Path) -> None:
        path = folder / "device-landed.bin"
        path.write_bytes(path.read_bytes()[:-5])

    with pytest.raises(Exception, match="damaged trial"):
        trial(cut)

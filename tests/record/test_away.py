# SPDX-License-Identifier: GPL-2.0-only
"""What the host did: stretches, what of a silence is the device's, and faults of QEMU's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.dma.frames import Landing, Window, look_at
from common.dma.sender import pause
from common.record.host.away import AwayLog, any_of, longest, read_away, settled, time_of
from common.record.host.log import read_host
from common.record.qemu.fault import lost_interrupt, read_qemu_fault

MS = 1_000_000
SECOND = 1000 * MS


def test_stretches_that_overlap_are_one(tmp_path: Path) -> None:
    log = AwayLog(tmp_path, "qemu")
    for begin, end in ((5, 40), (10, 40), (15, 41), (100, 104), (200, 230)):
        log.note(begin * MS, end * MS)
    log.close()
    assert read_away(tmp_path) == {"qemu": ((5 * MS, 41 * MS), (200 * MS, 230 * MS))}


@pytest.mark.parametrize("row", ["[1]", "[2, 1]", "[1, 2, 3]"])
def test_a_stretch_that_is_none_is_refused(tmp_path: Path, row: str) -> None:
    (tmp_path / "away-qemu.jsonl").write_text(row + "\n")
    with pytest.raises(ValueError, match=r"away-qemu\.jsonl"):
        read_away(tmp_path)


def test_who_is_away_is_passed_when_the_stretch_ends() -> None:
    away = {"qemu": [(100 * MS, 300 * MS)], "watcher": [(250 * MS, 500 * MS), (520 * MS, 600 * MS)]}
    path = ("sender", "qemu", "watcher")
    assert settled(50 * MS, away, path) == 50 * MS
    assert settled(120 * MS, away, path) == 500 * MS, "one stretch of each, not the next as well"
    assert settled(120 * MS, away, ("qemu",)) == 300 * MS
    assert settled(91 * MS, away, ("qemu",)) == 300 * MS, "it may not have had its turn by then"
    assert settled(89 * MS, away, ("qemu",)) == 89 * MS
    assert longest(away, 0, SECOND) == ("watcher", 250 * MS, 500 * MS)
    assert longest(away, 400 * MS, SECOND, ["qemu"]) is None


def silent(begin: int, end: int) -> tuple[list[int], list[Landing]]:
    """A frame each ms for a second, seen at once, but for those from begin to end (ms): they are
    seen one after the other at the end, a tenth of a ms apart."""
    sent = [SECOND + n * MS for n in range(1000)]
    late = SECOND + end * MS
    landed: list[Landing] = []
    for number, t in enumerate(sent):
        seen = t + MS // 10
        if begin <= number < end or (landed and landed[-1].seen >= seen):
            seen = max(late, landed[-1].seen + MS // 10)
        landed.append(Landing(number, t, seen))
    return sent, landed


def seen(begin: int, end: int, **away: list[tuple[int, int]]) -> Window:
    sent, landed = silent(begin, end)
    stretches = {
        who: [(SECOND + a * MS, SECOND + b * MS) for a, b in found] for who, found in away.items()
    }
    return look_at(sent, landed, sent[0], sent[-1], stretches)


def stall(begin: int, end: int, **away: list[tuple[int, int]]) -> float:
    return seen(begin, end, **away).stall_ms


def test_a_silence_while_everybody_ran_is_the_devices() -> None:
    assert stall(300, 450) == pytest.approx(150, abs=2)


def test_a_silence_for_as_long_as_qemu_was_away_is_not() -> None:
    assert stall(300, 450, qemu=[(299, 449)]) < 3


def test_a_silence_may_be_the_watchers_after_qemus() -> None:
    assert stall(300, 450, qemu=[(299, 380)], watcher=[(370, 449)]) < 3


def test_an_absence_in_the_middle_of_a_silence_excuses_nothing_after_it() -> None:
    assert stall(300, 450, qemu=[(320, 360), (400, 440)], watcher=[(330, 365)]) > 140
    assert stall(300, 450, qemu=[(299, 340)]) == pytest.approx(110, abs=2)


def test_the_device_owes_what_it_had_time_for() -> None:
    assert seen(300, 450).owed_ms == pytest.approx(150, abs=2)
    away = {"qemu": [(299, 380)], "watcher": [(370, 440)], "harness": [(440, 450)]}
    assert seen(300, 450, **away).owed_ms == pytest.approx(10, abs=2)
    before = {"watcher": [(400, 450)]}
    assert stall(300, 450, **before) > 140, "it was silent before anybody was away"
    assert seen(300, 450, **before).owed_ms == pytest.approx(100, abs=2)


def test_the_time_without_a_landing_is_summed_up() -> None:
    assert seen(300, 450).silent_ms == pytest.approx(150, abs=2)
    assert seen(300, 390).silent_ms == 0


def test_what_lies_in_stretches() -> None:
    both = any_of(
        {"qemu": [(10, 20), (50, 60)], "host": [(15, 30)], "x": [(0, 9)]}, ["qemu", "host"]
    )
    assert both == [(10, 30), (50, 60)]
    cases = {(0, 5): 0, (0, 100): 30, (15, 55): 20, (20, 25): 5, (30, 50): 0, (60, 70): 0}
    assert {when: time_of(both, *when) for when in cases} == cases


def test_what_has_piled_up_meanwhile_is_no_silence() -> None:
    sent, landed = silent(100, 900)
    away = {"qemu": [(SECOND + 99 * MS, SECOND + 899 * MS)]}
    window = look_at(sent, landed, sent[0], sent[-1], away)
    assert window.latency_ms > 700
    assert window.stall_ms < 3


def test_a_device_that_never_writes_again_is_silent_to_the_end() -> None:
    sent, landed = silent(0, 0)
    window = look_at(sent, landed[:400], sent[0], sent[-1], {})
    assert window.stall_ms == pytest.approx(599, abs=2)


def test_a_sender_that_does_not_send_is_no_silence_of_the_device() -> None:
    sent, landed = silent(0, 0)
    sent, landed = sent[:300] + sent[600:], landed[:300] + landed[600:]
    landed = [Landing(n, frame.sent, frame.seen) for n, frame in enumerate(landed)]
    window = look_at(sent, landed, sent[0], sent[-1], {})
    assert window.stall_ms < 3
    assert window.unsent_ms == pytest.approx(301, abs=2)
    assert window.silence_ms == pytest.approx(301, abs=2)


def test_the_sender_slows_down_as_the_ring_fills_and_stops_before_it_is_full() -> None:
    def each(room: int) -> float | None:
        return pause(room, 8192, 1000)

    assert [each(room) for room in (8191, 4097, 4096, 2048, 1024, 33)] == [
        *(0.001, 0.001, 0.01, 0.02, 0.04, 0.04)
    ]
    assert each(32) is None
    assert pause(4096, 8192, 50) == pytest.approx(0.02), "never faster than it was asked to be"
    # How long the ring lasts from a full one on, in seconds, and how far apart frames are at most.
    pauses = [p for room in range(8191, 0, -1) if (p := each(room)) is not None]
    assert sum(pauses) > 80
    assert max(pauses) <= 0.04


def host_rows(folder: Path, *, suspended: int = 0) -> None:
    rows = [
        {"t": n * 100 * MS, "waits": {"CPU 0/TCG": 90.0} if n == 5 else {}, "pressure_us": n * 1000}
        | {"steal_ms": 10.0 * n, "suspended_ns": 7 + (suspended if n > 6 else 0), "echoes": n}
        for n in range(10)
    ]
    (folder / "host.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_folder_without_a_sampler_says_that_nothing_was_measured(tmp_path: Path) -> None:
    assert read_host(tmp_path, read_away(tmp_path)) is None


def test_the_hosts_log_says_who_waited_and_for_how_long(tmp_path: Path) -> None:
    host_rows(tmp_path)
    (tmp_path / "away-qemu.jsonl").write_text(f"[{MS}, {7 * MS}]\n[{100 * MS}, {160 * MS}]\n")
    host = read_host(tmp_path, read_away(tmp_path))
    assert host is not None
    assert host.away == {"qemu": ((100 * MS, 160 * MS),)}, "6 ms are not worth a line"
    assert (host.pressure_ms, host.steal_ms, host.suspended_ms) == (9.0, 90.0, 0.0)
    assert host.waited_ms(0, SECOND, "CPU ") == 90.0
    assert host.waited_ms(600 * MS, SECOND, "CPU ") == 0.0
    assert host.stood_still() is None


@pytest.mark.parametrize("who", ["qemu", "harness", "sender"])
def test_who_was_away_for_half_a_second_stood_still(tmp_path: Path, who: str) -> None:
    host_rows(tmp_path)
    (tmp_path / f"away-{who}.jsonl").write_text(f"[{100 * MS}, {700 * MS}]\n")
    host = read_host(tmp_path, read_away(tmp_path))
    assert host is not None
    assert host.stood_still() == f"{who} not run for 600 ms at +0.1 s"


def test_a_suspended_host_stood_still(tmp_path: Path) -> None:
    host_rows(tmp_path, suspended=8 * SECOND)
    host = read_host(tmp_path, read_away(tmp_path))
    assert host is not None
    assert host.suspended_ms == 8000.0
    assert "host suspended for 8000 ms" in (host.stood_still() or "")


KERNEL, GUEST, PROGRAM = ("ffffffff81000001", 0), ("000000000004083b", 0), ("00007f0000401000", 3)


def state(
    *,
    in_service: str = "(none)",
    halted: int = 1,
    later: str | None = None,
    at: tuple[str, int] = KERNEL,
    waiting: str = "(none)",
    waiting_later: str | None = None,
    priority: str = "10",
    flags: str = "00000246",
    ticks: bool = False,
    apic: str = "enabled",
    lvtt: str = "masked one-shot",
    left: int = 0,
) -> str:
    rip, level = at

    def look(vectors: str, waiting: str, count: int = 3999) -> str:
        return (
            "(qemu) info status\nVM status: running\n\n(qemu) info registers -a\n"
            "CPU#0\nRAX=00 RIP=ffffffff81000000 RFL=00000246 CPL=0 II=0 A20=1 SMM=0 HLT=0\n"
            f"\nCPU#1\nRAX=00\nRIP={rip} RFL={flags} CPL={level} SMM=0 HLT={halted}\n\n"
            "(qemu) info lapic 0\ndumping local APIC state for CPU 0\n\n"
            "ISR\t (none)\nIRR\t (none)\n\n"
            "(qemu) info lapic 1\ndumping local APIC state for CPU 1\n\n"
            f"LVTT\t 0x000000ec active-hi edge {lvtt:>24}     Fixed  (vec 236)\n"
            f"Timer\t DCR=0xb (divide by 1) initial_count = {count} current_count = {left}\n\n"
            f"SPIV\t 0x000001ff APIC {apic}, focus=off, spurious vec 255\n"
            f"ISR\t {vectors}\nIRR\t {waiting}\n\n"
            f"APR 0x01 TPR 0x10 DFR 0x0f LDR 0x00 PPR 0x{priority}\n\n"
        )

    return look(in_service, waiting) + look(
        in_service if later is None else later,
        waiting if waiting_later is None else waiting_later,
        2877 if ticks else 3999,
    )


def test_a_cpu_that_sleeps_with_an_interrupt_in_service_has_lost_its_end() -> None:
    assert "CPU 1 is halted with vector 236" in (lost_interrupt(state(in_service="236 ")) or "")


@pytest.mark.parametrize(("at", "what"), [(GUEST, "runs a guest"), (PROGRAM, "runs userspace")])
def test_a_cpu_that_runs_something_else_with_an_interrupt_in_service_has_lost_it_too(
    at: tuple[str, int], what: str
) -> None:
    said = lost_interrupt(state(in_service="251 ", halted=0, at=at)) or ""
    assert f"CPU 1 {what} with vector 251" in said
    assert lost_interrupt(state(in_service="(none)", halted=0, at=at)) is None


@pytest.mark.parametrize(
    "text",
    [
        state(in_service="(none)"),
        state(in_service="236 ", halted=0),
        state(in_service="236 ", later="(none)"),
        state(in_service="236 ", later="235 "),
        state(in_service="236 ", ticks=True),
        state(in_service="236 ").partition("(qemu) info status")[0],
        "(qemu) info status\nno answer: it has ended\n",
    ],
)
def test_every_other_silence_may_be_the_kernels(text: str) -> None:
    assert lost_interrupt(text) is None


@pytest.mark.parametrize(
    ("where", "halted", "what"),
    [
        (KERNEL, 1, "is halted"),
        (KERNEL, 0, "runs a kernel"),
        (GUEST, 0, "runs a guest"),
        (PROGRAM, 0, "runs userspace"),
    ],
)
def test_a_cpu_for_which_an_interrupt_waits_was_forgotten(
    where: tuple[str, int], halted: int, what: str
) -> None:
    text = state(waiting="35 236 251 ", waiting_later="35 236 ", halted=halted, at=where)
    assert f"lost an interrupt: CPU 1 {what} while vector 236" in (lost_interrupt(text) or "")


@pytest.mark.parametrize(
    "text",
    [
        state(waiting="35 236 ", halted=0, flags="00000046"),
        state(waiting="236 ", waiting_later="35 "),
        state(waiting="236 ", ticks=True),
        state(waiting="236 ", flags="00000046"),
        state(waiting="18 31 "),
        state(waiting="236 ", apic="disabled"),
        state(waiting="236 ", priority="e0"),
    ],
)
def test_what_waits_rightly_was_not_forgotten(text: str) -> None:
    assert lost_interrupt(text) is None


def test_a_timer_that_was_set_and_runs_not_was_lost() -> None:
    said = lost_interrupt(state(lvtt="one-shot"))
    assert said == "QEMU lost a setting of CPU 1's timer: it is halted (qemu-state.txt)"


@pytest.mark.parametrize(
    "text",
    [
        state(),
        state(lvtt="periodic"),
        state(lvtt="one-shot", left=7),
        state(lvtt="one-shot", ticks=True),
        state(lvtt="one-shot", halted=0),
        state(lvtt="one-shot", flags="00000046"),
        state(lvtt="one-shot", waiting="18 "),
    ],
    ids=["masked", "periodic", "runs", "ticks", "awake", "for good", "waits"],
)
def test_a_timer_that_rests_rightly_was_not_lost(text: str) -> None:
    assert lost_interrupt(text) is None


def test_a_guest_that_goes_between_its_kernel_and_userspace_may_be_forgotten_too() -> None:
    first, second = (state(waiting="236 ", halted=0, at=at) for at in (KERNEL, PROGRAM))
    text = first[: len(first) // 2] + second[len(second) // 2 :]
    assert "CPU 1 runs a kernel while vector 236" in (lost_interrupt(text) or "")


def test_qemus_own_assertion_is_named(tmp_path: Path) -> None:
    assert read_qemu_fault(tmp_path) is None
    (tmp_path / "qemu.log").write_text(
        "qemu-system-x86_64: ../system/physmem.c:2418: iotlb_to_section:"
        " Assertion `section_index < d->map.sections_nb' failed.\n"
    )
    assert "iotlb_to_section" in (read_qemu_fault(tmp_path) or "")


def threads(state: str, ticks: int, number: int = 1) -> str:
    """What the host adds to a look: QEMU's own threads beside those of its CPUs."""
    return (
        "(host) threads\nqemu-system-x86 S 120 do_sys_poll\nCPU 0/TCG R 900 0\n"
        f"CPU {number}/TCG {state} {ticks} futex_do_wait\n\n"
    )


def looks(*pairs: tuple[str, str]) -> str:
    """A look at CPUs and one at threads, and so on."""
    return "".join(look[: len(look) // 2] + host for look, host in pairs)


AWAKE = state(halted=0)


def test_a_cpu_whose_thread_sleeps_is_not_run_by_qemu() -> None:
    text = looks((AWAKE, threads("S", 700)), (AWAKE, threads("S", 700)))
    assert lost_interrupt(text) == (
        "QEMU's CPU 1 sleeps in futex_do_wait, and is not halted (qemu-state.txt)"
    )


@pytest.mark.parametrize(
    "text",
    [
        looks((AWAKE, threads("S", 700)), (AWAKE, threads("S", 701))),
        looks((AWAKE, threads("S", 700)), (AWAKE, threads("R", 700))),
        looks((AWAKE, threads("R", 700)), (AWAKE, threads("R", 700))),
        looks((state(), threads("S", 700)), (state(), threads("S", 700))),
        looks((AWAKE, threads("S", 700)), (state(halted=0, at=PROGRAM), threads("S", 700))),
        looks(
            (AWAKE.replace("running", "paused"), threads("S", 700)),
        )
        * 2,
        looks((AWAKE, threads("S", 700))),
    ],
    ids=["ran", "runs now", "runs", "halted", "went on", "stopped", "once"],
)
def test_a_thread_that_sleeps_rightly_is_no_fault(text: str) -> None:
    assert lost_interrupt(text) is None

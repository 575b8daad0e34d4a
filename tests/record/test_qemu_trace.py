# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's trace log, as recorded from QEMU 10.0.2 and from QEMU 11.1.3."""

from __future__ import annotations

import pytest

from common.record.qemu.trace import ConfigWrite, TraceEvent, asked_of, config_write, parse, read

LOG_10 = """\
qemu-system-x86_64: warning: something
16189@1795361676.647382:igb_core_vf_reset VF7
1206@1795361872.037142:pci_pm_transition igb 01:00.0 PM transition D0->D3
16192@1795361676.664497:pci_cfg_write pcie-root-port 00:02.0 @0x4 <- 0x103
cut o
"""

LOG_11 = """\
2026-11-28T19:15:15.035286Z e1000e_cb_qdev_reset_hold E1000E qdev reset hold
2026-11-28T19:15:15.038903Z runstate_set current_run_state 6 (prelaunch) new_state 9 (running)
2026-11-28T19:15:15.041984Z pci_cfg_write mch 00:00.0 @0x90 <- 0x33333330
2026-11-28T19:15:15.074880Z pci_cfg_write pcie-root-port 00:01.0 @0x24 <- 0xfea0
2026-11-28T19:15:22.850078Z qemu-system-x86_64: terminating on signal 15 from pid 23655 (timeout)
2026-11-28T19:15:22.850167Z runstate_set current_run_state 9 (running) new_state 11 (shutdown)
"""
ASKED = frozenset({"pci_cfg_write", "runstate_set", "e1000e_cb_qdev_reset_hold"})
NOON = 1795867200  # 2026-11-28T12:00:00Z


def test_events_are_on_the_hosts_monotonic_clock() -> None:
    events = list(parse(LOG_10.splitlines(), clock_offset_ns=1795361676 * 10**9))
    assert [event.name for event in events] == [
        "igb_core_vf_reset",
        "pci_pm_transition",
        "pci_cfg_write",
    ]
    assert events[0] == TraceEvent(647_382_000, "igb_core_vf_reset", "VF7")
    assert "D0->D3" in events[1].text


def test_config_writes() -> None:
    events = list(parse(LOG_10.splitlines(), clock_offset_ns=0))
    assert config_write(events[0]) is None
    assert config_write(events[2]) == ConfigWrite(1795361676664497000, "00:02.0", 4, 0x103)


def test_the_log_of_qemu_11() -> None:
    log = read(LOG_11.splitlines(keepends=True), asked=ASKED, clock_offset_ns=NOON * 10**9)
    assert (log.lines, log.strange, log.first_strange) == (6, 0, "")
    assert [event.name for event in log.events] == [
        "e1000e_cb_qdev_reset_hold",
        "runstate_set",
        "pci_cfg_write",
        "pci_cfg_write",
        "runstate_set",
    ]
    at = (7 * 3600 + 15 * 60 + 15) * 10**9
    assert config_write(log.events[2]) == ConfigWrite(at + 41_984_000, "00:00.0", 0x90, 0x33333330)


@pytest.mark.parametrize(
    ("stamp", "ns"),
    [
        ("2026-11-28T12:00:01.500000Z", 1_500_000_000),
        ("2026-11-28T12:00:01Z", 1_000_000_000),  # g_date_time_format_iso8601() of a whole second
        ("2026-11-28t12:00:01.25z", 1_250_000_000),
        ("2026-11-28 12:00:01.123456789Z", 1_123_456_789),
        ("2026-11-28T13:30:01.5+01:30", 1_500_000_000),
        ("2026-11-28T07:00:00-05:00", 0),
        ("2026-11-28T12:00:00-00:00", 0),
        ("4711@1795867201.500000:", 1_500_000_000),
    ],
)
def test_forms_of_a_stamp(stamp: str, ns: int) -> None:
    line = f"{stamp}{'' if stamp.endswith(':') else ' '}pci_cfg_write igb 01:00.0 @0x4 <- 0x503\n"
    log = read([line], asked=ASKED, clock_offset_ns=NOON * 10**9)
    assert [event.t for event in log.events] == [ns]
    assert log.strange == 0


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-28T12:00:00 pci_cfg_write igb 01:00.0 @0x4 <- 0x503\n",  # of which zone?
        "2026-13-28T12:00:00Z pci_cfg_write igb 01:00.0 @0x4 <- 0x503\n",
        "[12:00:00] pci_cfg_write igb 01:00.0 @0x4 <- 0x503\n",
        "2026-11-28T12:00:00Z cpu1 pci_cfg_write igb 01:00.0 @0x4 <- 0x503\n",
        "2026-11-28T12:00:00Z pci_cfg_write igb 01:00.0 @0x4 <- 0x503 len 2\n",
        "2026-11-28T12:00:00Z pci_cfg_write 01:00.0 igb 0x4 <- @0x503\n",
        "2026-11-28T12:00:00Z pci_cfg_write igb 01:00.0 @0x4 <- 0x50",  # cut off
        "2026-11-28T12:00:00Z pci_cfg_write\n",
        "2026-11-28T12:00:00Z pci_cfg_write2 igb 01:00.0 @0x4 <- 0x503\n",
        "2026-11-28T12:00:00Z runstate_set running -> shutdown\n",
    ],
)
def test_what_names_an_event_and_cannot_be_read_is_kept(line: str) -> None:
    log = read([*LOG_11.splitlines(keepends=True), line], asked=ASKED, clock_offset_ns=0)
    assert (log.strange, log.first_strange) == (1, line.rstrip("\n"))
    assert len(log.events) == 5


def test_what_was_asked_for_is_on_the_command_line() -> None:
    argv = ["/usr/bin/qemu", "-D", "log", "-trace", "pci_cfg_write", "-trace", "runstate_set"]
    assert asked_of(argv) == {"pci_cfg_write", "runstate_set"}

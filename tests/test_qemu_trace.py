# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's trace log, as recorded from QEMU 10.0.2."""

from __future__ import annotations

from common.qemu_trace import ConfigWrite, TraceEvent, config_write, parse

LOG = """\
qemu-system-x86_64: warning: something
16189@1795361676.647382:igb_core_vf_reset VF7
1206@1795361872.037142:pci_pm_transition igb 01:00.0 PM transition D0->D3
16192@1795361676.664497:pci_cfg_write pcie-root-port 00:02.0 @0x4 <- 0x103
cut o
"""


def test_events_are_on_the_hosts_monotonic_clock() -> None:
    events = list(parse(LOG.splitlines(), clock_offset_ns=1795361676 * 10**9))
    assert [event.name for event in events] == [
        "igb_core_vf_reset",
        "pci_pm_transition",
        "pci_cfg_write",
    ]
    assert events[0] == TraceEvent(647_382_000, "igb_core_vf_reset", "VF7")
    assert "D0->D3" in events[1].text


def test_config_writes() -> None:
    events = list(parse(LOG.splitlines(), clock_offset_ns=0))
    assert config_write(events[0]) is None
    assert config_write(events[2]) == ConfigWrite(1795361676664497000, "00:02.0", 4, 0x103)

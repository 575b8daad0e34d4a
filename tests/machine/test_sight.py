# SPDX-License-Identifier: GPL-2.0-only
"""The witnesses of a machine are tried at its start; on a real QEMU's RAM, and on its words."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.arch.known import DEFAULT
from common.errors import HarnessError
from common.host.qemu_binary import qemu_path, qemu_version
from common.machine import sight
from common.machine.sight import prove, prove_ram, prove_start
from common.record.qemu.process import QemuProcess, process_identity

OFFSET = 1795893315 * 10**9  # CLOCK_REALTIME minus CLOCK_MONOTONIC
QEMU_10 = "23988@1795893316.041984:pci_cfg_write mch 00:00.0 @0x90 <- 0x33333330\n"
QEMU_11 = "2026-11-28T19:15:16.041984Z pci_cfg_write mch 00:00.0 @0x90 <- 0x33333330\n"
RESUME = '{"t": 1, "qemu_time": 1.0, "event": "RESUME", "details": {}}\n'


@contextmanager
def running_qemu(*options: str) -> Iterator[int]:
    """A QEMU with 64 MiB of shared memory that runs its firmware, and finds nothing to boot."""
    backend = "memory-backend-memfd,id=ram,share=on,size=64M"
    command = [str(qemu_path()), "-machine", "q35,memory-backend=ram", "-m", "64"]
    command += ["-object", backend, "-nodefaults", "-display", "none", *options]
    process = subprocess.Popen(command)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def sees_ram(pid: int, *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            prove_ram(pid)
            return True
        except HarnessError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)


@pytest.fixture(scope="module")
def booted() -> Iterator[int]:
    with running_qemu() as pid:
        assert sees_ram(pid, seconds=60)
        yield pid


def test_ram_in_which_no_firmware_ran_is_not_what_is_looked_for() -> None:
    with running_qemu("-S") as pid:
        assert not sees_ram(pid, seconds=1)


@dataclass
class Machine:
    """As much of a machine as is tried."""

    folder: Path
    process: Any
    unknown: frozenset[str] = frozenset()
    clock_offset_ns: int = OFFSET
    started_ns: int = 10**9
    spec: Any = field(
        default_factory=lambda: SimpleNamespace(
            traces=("runstate_set", "pci_cfg_write"), emulator=qemu_path(), arch=DEFAULT
        )
    )

    def traced(self, event: str) -> bool:
        return event not in self.unknown

    def process_now(self) -> QemuProcess | None:
        return process_identity(self.process.pid)


@pytest.fixture
def machine(tmp_path: Path, booted: int) -> Machine:
    (tmp_path / "qmp.jsonl").write_text(RESUME)
    (tmp_path / "qemu-trace.log").write_text(QEMU_11)
    return Machine(tmp_path, SimpleNamespace(pid=booted))


@pytest.mark.parametrize("line", [QEMU_10, QEMU_11, QEMU_11 + QEMU_11[:40]])
def test_a_machine_that_is_seen(machine: Machine, line: str) -> None:
    (machine.folder / "qemu-trace.log").write_text(line)
    prove(machine, now=2 * 10**9)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "wrote no trace: qemu-trace.log is empty"),
        ("pci_cfg_write mch 00:00.0 @0x90 <- 0x3\n", "cannot be read: .* 'pci_cfg_write mch"),
        (QEMU_11.replace("Z ", "Z 3 "), "cannot be read: .*Z 3 pci_cfg_write"),
        (QEMU_11.replace("T19", "T20"), "no write to PCI configuration space while .* booted"),
        (QEMU_11.replace("Z ", "+01:00 "), "no write to PCI configuration space"),
    ],
)
def test_a_trace_that_is_not(machine: Machine, line: str, said: str) -> None:
    (machine.folder / "qemu-trace.log").write_text(line)
    with pytest.raises(HarnessError, match=f"QEMU {qemu_version(qemu_path())}.*{said}"):
        prove(machine, now=2 * 10**9)


def test_an_event_that_this_qemu_does_not_have(machine: Machine) -> None:
    """QEMU itself only warns of it; what it would tell of was then never seen to happen."""
    machine.unknown = frozenset({"pci_cfg_write"})
    with pytest.raises(HarnessError, match="has no trace event pci_cfg_write"):
        prove_start(machine)


def test_a_form_that_is_not_known_is_told_at_once(machine: Machine) -> None:
    (machine.folder / "qemu-trace.log").write_text("[1] pci_cfg_write mch 00:00.0 @0x90 <- 0x3\n")
    with pytest.raises(HarnessError, match=r"cannot be read: .*'\[1\] pci_cfg_write mch"):
        prove_start(machine)


def test_a_trace_that_stays_empty(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sight, "_FIRMWARE_SECONDS", 0.1)
    (machine.folder / "qemu-trace.log").write_text("")
    with pytest.raises(HarnessError, match=r"wrote no trace: qemu-trace\.log is empty"):
        prove_start(machine)


def test_firmware_that_writes_nothing_yet_is_left_to_the_next_look(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sight, "_FIRMWARE_SECONDS", 0.1)
    line = "2026-11-28T19:15:15Z runstate_set current_run_state 6 (prelaunch) new_state 9 (running)"
    (machine.folder / "qemu-trace.log").write_text(f"{line}\n")
    prove_start(machine)


def test_firmware_that_has_written(machine: Machine) -> None:
    begin = time.monotonic()
    prove_start(machine)
    assert time.monotonic() - begin < 4


def test_a_monitor_that_says_nothing(machine: Machine) -> None:
    (machine.folder / "qmp.jsonl").write_text("")
    with pytest.raises(HarnessError, match="monitor came through libvirt"):
        prove(machine, now=2 * 10**9)


def test_a_stage_without_a_trace_needs_none(machine: Machine) -> None:
    machine.spec.traces = ("runstate_set",)
    (machine.folder / "qemu-trace.log").unlink()
    prove(machine, now=2 * 10**9)


def test_a_machine_that_has_ended_is_told_of_elsewhere(machine: Machine) -> None:
    with running_qemu() as pid:
        machine.process.pid = pid
    prove(machine, now=2 * 10**9)

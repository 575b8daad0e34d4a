# SPDX-License-Identifier: GPL-2.0-only
"""What runs on the host next to a machine, for a stage that needs it: a watcher, a sender."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from common.machine.domain import MachineSpec
from common.record.qemu.process import QemuProcess


class HostHelper(Protocol):
    """What a stage runs on the host beside the machine: a watcher, a sender.

    It hears each line of the dialogue before a rendezvous in it is answered, so that it can
    do at that point what the workload waits for.
    """

    def on_line(self, text: str) -> None:
        """Take a line of the dialogue."""


class MachineView(Protocol):
    """What a helper may know of its machine."""

    folder: Path
    """Where what is found stays."""
    scratch: Path
    """Where what is needed meanwhile may lie; it goes with the machine."""
    spec: MachineSpec
    process: QemuProcess
    ports: Mapping[str, Path]
    """Sockets of the spec's virtio ports, by name."""

    def ask_qemu(self, question: str) -> str:
        """QEMU's answer on its human monitor; to most commands that succeed nothing."""

    def note_state(self) -> None:
        """Keep in `folder` what QEMU and Linux say of the CPUs, asked twice."""


HostHelperFactory = Callable[[MachineView], AbstractContextManager[HostHelper]]


class _Silent:
    def on_line(self, text: str) -> None:
        """Do nothing."""


def no_helper(_machine: MachineView) -> AbstractContextManager[HostHelper]:
    """For stages that need nothing on the host."""
    return nullcontext(_Silent())

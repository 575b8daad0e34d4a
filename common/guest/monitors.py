# SPDX-License-Identifier: GPL-2.0-only
"""The monitors of the QEMUs in the machine, each over a virtio port of its own."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import QMPClient, QMPError

from common.checks.live_update import INCOMING, OUTGOING
from common.guest.lines import TRANSCRIPT
from common.guest.qemu import Failed
from common.machine.helper import MachineView

QMP_SECONDS = 20.0
_EVENTS_SECONDS = 0.2

_T = TypeVar("_T")


class Monitor:
    """One QEMU's monitor; each answer may take `seconds`. All that is said is in the transcript."""

    def __init__(
        self, line: socket.socket, side: str, write: Callable[..., None], seconds: float
    ) -> None:
        self._side, self._transcript, self.seconds = side, write, seconds
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient(side)
        self._run(self._client.connect(line), self.seconds)
        assert self._client.greeting
        self._write(greeting=self._client.greeting._asdict())

    def _write(self, **entry: object) -> None:
        self._transcript(side=self._side, **entry)

    def _run(self, work: Awaitable[_T], seconds: float) -> _T:
        return self._loop.run_until_complete(asyncio.wait_for(work, seconds))

    def do(self, command: str, **arguments: object) -> Any:
        """The command's return value. Raises QMPError with QEMU's own words."""
        self._write(command=command, arguments=arguments)
        answer = self._run(self._client.execute(command, arguments), self.seconds)
        self._write(answer=answer)
        return answer

    def wait_migration(self, *, seconds: float | None = None) -> None:
        """Returns when the state is saved or loaded. Raises Failed with QEMU's reason."""
        while True:
            event = self._event(seconds or self.seconds)
            status = event["data"]["status"] if event["event"] == "MIGRATION" else None
            if status == "completed":
                return
            if status == "failed":
                raise Failed(self.do("query-migrate").get("error-desc", "no reason given"))

    def wait_event(self, name: str) -> None:
        """Returns when the event has come."""
        while self._event(self.seconds)["event"] != name:
            pass

    def _event(self, seconds: float) -> dict[str, Any]:
        event = dict(self._run(self._client.events.get(), seconds))
        self._write(event=event)
        return event

    def take_events(self) -> None:
        """What has come until now is in the transcript."""
        self._run(asyncio.sleep(_EVENTS_SECONDS), self.seconds)
        while not self._client.events.empty():
            self._event(self.seconds)

    def close(self) -> None:
        """The connection is closed, whether or not QEMU is still there."""
        try:
            self._run(self._client.disconnect(), self.seconds)
        except (QMPError, OSError, EOFError, TimeoutError) as error:
            self._write(failed="close", why=str(error))
        self._loop.close()


class Monitors:
    """That of each side's QEMU in turn, and the transcript of all that is said, TRANSCRIPT."""

    def __init__(self, machine: MachineView, *, seconds: float = QMP_SECONDS) -> None:
        self._seconds = seconds
        # At once: a QEMU that finds nobody at the other end takes its monitor for closed.
        ports = {side: machine.ports[f"qmp.{side}"] for side in (OUTGOING, INCOMING)}
        self._lines = {side: _connected(port) for side, port in ports.items()}
        self._transcript = (machine.folder / TRANSCRIPT).open("w", buffering=1)
        self._monitor: Monitor | None = None
        self.side = OUTGOING
        """Whose turn it is."""

    def write(self, **entry: object) -> None:
        """Add to the transcript."""
        entry = {"t": time.monotonic_ns(), "side": self.side, **entry}
        self._transcript.write(json.dumps(entry) + "\n")

    def connect(self) -> None:
        """To the QEMU whose turn it is, and no more to the one before it."""
        self._disconnect()
        self._monitor = Monitor(self._lines[self.side], self.side, self.write, self._seconds)

    @property
    def now(self) -> Monitor:
        """The one that is connected. Raises Failed where none is."""
        if self._monitor is None:
            raise Failed("QEMU's monitor is not connected")
        return self._monitor

    def _disconnect(self) -> None:
        if self._monitor:
            self._monitor.close()
            self._monitor = None

    def close(self) -> None:
        """Everything heard until now is on disk."""
        self._disconnect()
        for line in self._lines.values():
            line.close()
        self._transcript.close()


def _connected(path: Path) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    line.connect(str(path))
    return line

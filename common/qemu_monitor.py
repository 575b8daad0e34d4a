# SPDX-License-Identifier: GPL-2.0-only
"""The monitor of a QEMU in the machine, over a virtio port of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import QMPClient, QMPError

from common.qemu_guest import Failed

QMP_SECONDS = 20.0
_EVENTS_SECONDS = 0.2

_T = TypeVar("_T")


class Monitor:
    """One QEMU's monitor. Everything said goes into the transcript."""

    def __init__(self, line: socket.socket, side: str, write: Callable[..., None]) -> None:
        self._side, self._transcript = side, write
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient(side)
        self._run(self._client.connect(line), QMP_SECONDS)
        assert self._client.greeting
        self._write(greeting=self._client.greeting._asdict())

    def _write(self, **entry: object) -> None:
        self._transcript(side=self._side, **entry)

    def _run(self, work: Awaitable[_T], seconds: float) -> _T:
        return self._loop.run_until_complete(asyncio.wait_for(work, seconds))

    def do(self, command: str, **arguments: object) -> Any:
        """The command's return value. Raises QMPError with QEMU's own words."""
        self._write(command=command, arguments=arguments)
        answer = self._run(self._client.execute(command, arguments), QMP_SECONDS)
        self._write(answer=answer)
        return answer

    def wait_migration(self, *, seconds: float) -> None:
        """Returns when the state is saved or loaded. Raises Failed with QEMU's reason."""
        while True:
            event = self._event(seconds)
            status = event["data"]["status"] if event["event"] == "MIGRATION" else None
            if status == "completed":
                return
            if status == "failed":
                raise Failed(self.do("query-migrate").get("error-desc", "no reason given"))

    def wait_event(self, name: str) -> None:
        """Returns when the event has come."""
        while self._event(QMP_SECONDS)["event"] != name:
            pass

    def _event(self, seconds: float) -> dict[str, Any]:
        event = dict(self._run(self._client.events.get(), seconds))
        self._write(event=event)
        return event

    def take_events(self) -> None:
        """What has come until now is in the transcript."""
        self._run(asyncio.sleep(_EVENTS_SECONDS), QMP_SECONDS)
        while not self._client.events.empty():
            self._event(QMP_SECONDS)

    def close(self) -> None:
        """The connection is closed, whether or not QEMU is still there."""
        try:
            self._run(self._client.disconnect(), QMP_SECONDS)
        except (QMPError, OSError, EOFError, TimeoutError) as error:
            self._write(failed="close", why=str(error))
        self._loop.close()


def connected(path: Path) -> socket.socket:
    """The port, from the host's side."""
    line = socket.socket(socket.AF_UNIX)
    line.connect(str(path))
    return line

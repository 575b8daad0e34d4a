# SPDX-License-Identifier: GPL-2.0-only
"""The machine's serial lines: read without pause, kept raw, each line timestamped.

The kernels' console goes into a file, which QEMU writes and `ConsoleFile` follows. It
must not be a socket: the console driver polls the UART and gives up on a character after
10 ms (8250_port.c:wait_for_lsr), and a UNIX socket is full after some 300 one-byte writes,
so that a host that was busy for a moment cost evidence.

The others are sockets. A thread reads at once and stamps each line with the host's
CLOCK_MONOTONIC, whoever waits for it and when.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from common.record.dialogue import Line


class _Stamps:
    """Cuts bytes into lines and writes each, stamped, to NAME.jsonl."""

    def __init__(self, path: Path, on_line: Callable[[Line], None]) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1)
        self._on_line = on_line
        self._partial = b""

    def take(self, now: int, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._keep(now, line)

    def cut(self) -> None:
        """The rest without an end of line is a line too."""
        if self._partial:
            self._keep(time.monotonic_ns(), self._partial)
        self._partial = b""

    def close(self) -> None:
        """Keep the rest as well."""
        self.cut()
        self._file.close()

    def _keep(self, now: int, raw: bytes) -> None:
        line = Line(t=now, text=raw.rstrip(b"\r").decode("utf-8", "backslashreplace"))
        self._file.write(json.dumps([line.t, line.text], ensure_ascii=False) + "\n")
        self._on_line(line)


class ConsoleFile:
    """Follows the file that QEMU writes the console to; stamps into the .jsonl beside it.

    `on_line` runs in the following thread: it must be quick and must not raise.
    """

    _POLL_SECONDS = 0.001

    def __init__(self, path: Path, *, on_line: Callable[[Line], None]) -> None:
        path.touch()
        self._raw = path.open("rb", buffering=0)
        self._stamps = _Stamps(path.with_suffix(".jsonl"), on_line)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="console", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while True:
            last = self._ended.is_set()
            with self._lock:
                self._read()
            if last:
                return
            self._ended.wait(self._POLL_SECONDS)

    def _read(self) -> None:
        while data := self._raw.read(65536):
            self._stamps.take(time.monotonic_ns(), data)

    def cut(self) -> None:
        """Stamp everything that QEMU wrote until now; what comes next begins a line."""
        with self._lock:
            self._read()
            self._stamps.cut()

    def close(self) -> None:
        """Stop; everything that QEMU wrote until now is stamped. Call it when QEMU has ended."""
        self._ended.set()
        self._thread.join()
        self._raw.close()
        self._stamps.close()


class StampedLine:
    """A serial line that is a socket; `on_line` is called for each stamped line.

    Writes NAME.log (raw bytes) and NAME.jsonl (one stamped line each) into `folder`. `on_line` and
    `on_bytes` run in the reading thread: they must be quick and must not raise. `on_bytes` is given
    whole lines, at the end the rest, and then b"".
    """

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        folder: Path,
        on_line: Callable[[Line], None],
        on_bytes: Callable[[bytes], None] = lambda _data: None,
    ) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._on_bytes = on_bytes
        self._pending = b""
        self._raw = (folder / f"{name}.log").open("wb", buffering=0)
        self._stamps = _Stamps(folder / f"{name}.jsonl", on_line)
        self._thread = threading.Thread(target=self._read, name=f"serial-{name}", daemon=True)
        self._thread.start()

    # Far below what fills the socket; a system call or two for each byte held up the machine.
    _GATHER_SECONDS = 0.0003

    def _read(self) -> None:
        # The UART sends byte by byte; waking pexpect for each took 75 us a byte, so that whole
        # lines are handed on.
        while True:
            try:
                data = self._socket.recv(65536)
            except OSError:
                data = b""
            if not data:
                break
            self._stamps.take(time.monotonic_ns(), data)
            self._raw.write(data)
            time.sleep(self._GATHER_SECONDS)
            whole, newline, rest = (self._pending + data).rpartition(b"\n")
            if newline:
                self._on_bytes(whole + newline)
            self._pending = rest
        if self._pending:
            self._on_bytes(self._pending)
        self._on_bytes(b"")

    def cut(self) -> None:
        """What comes next begins a line. For a line on which nothing is being said."""
        self._stamps.cut()
        self._pending = b""

    def send(self, text: str) -> None:
        """Write `text` to the line."""
        self._socket.sendall(text.encode())

    def close(self) -> None:
        """Close the line; everything read so far is on disk afterwards."""
        with suppress(OSError):  # the other end may be gone already
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        self._raw.close()
        self._stamps.close()

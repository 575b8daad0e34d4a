# SPDX-License-Identifier: GPL-2.0-only
"""Runs the programs of a kernel build, and makes sure that they end."""

from __future__ import annotations

import os
import selectors
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from kernel.errors import BuildTimeout
from kernel.system.lock import Lock

END_SECONDS = 10.0


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of every program run here: what is not in a key must not reach a build."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {"PATH": os.defpath, **kept, "LC_ALL": "C", **(extra or {})}


def polite(command: Sequence[str]) -> list[str]:
    """The command at low priority, and ended by the kernel should this process be killed."""
    prefix: list[str] = []
    if shutil.which("setpriv"):
        prefix += ["setpriv", "--pdeathsig", "TERM", "--"]
    if shutil.which("nice"):
        prefix += ["nice", "-n", "10"]
    return [*prefix, *command]


# Ended by SIGTERM, make ends its shells but not what those have started: the group must go.
_SUPERVISE = 'trap "trap - TERM; kill -TERM 0" TERM; "$@" & wait $!'


def run_logged(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str],
    timeout: float,
    cwd: Path | None = None,
    line: Callable[[str], None] | None = None,
    locks: Sequence[Lock] = (),
) -> int:
    """The exit status; all output is appended to `log` and given to `line` line by line.

    The program has its own process group, which is ended as a whole when this function is left
    by an exception (KeyboardInterrupt among them) or when `timeout` s are over (TimeoutError).
    `locks` stay held until the last process of the group has ended.
    """
    with log.open("ab") as out:
        process = subprocess.Popen(
            polite(["sh", "-c", _SUPERVISE, "sh", *command]),
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            pass_fds=[lock.fileno() for lock in locks],
        )
        try:
            assert process.stdout is not None
            _pump(process.stdout.fileno(), out.write, line, time.monotonic() + timeout, command[0])
            return process.wait(timeout=END_SECONDS)
        except BaseException:
            _end_group(process)
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()


def _pump(
    fd: int,
    write: Callable[[bytes], object],
    line: Callable[[str], None] | None,
    deadline: float,
    program: str,
) -> None:
    """Everything from `fd` until its end is written and split into lines."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{program} did not end in time")
            if not selector.select(timeout=left):
                continue
            chunk = os.read(fd, 65536)
            write(chunk)
            if line is None:
                if not chunk:
                    return
                continue
            *lines, rest = (rest + chunk).split(b"\n")
            if not chunk and rest:
                lines.append(rest)
            for raw in lines:
                line(raw.decode(errors="replace"))
            if not chunk:
                return


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """No process of the group is left; make gets its time to remove half-written targets."""
    for sig in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sig)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        deadline = time.monotonic() + END_SECONDS
        while _group_alive(process.pid) and time.monotonic() < deadline:
            time.sleep(0.02)
    process.wait(timeout=END_SECONDS)


def _group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def run_captured(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    timeout: float,
    cwd: Path | None = None,
    errors: str = "replace",
) -> subprocess.CompletedProcess[str]:
    """The finished program with its two outputs as text, whatever its exit status.

    `errors` says what becomes of bytes that are no UTF-8, as for bytes.decode(). Raises
    BuildTimeout after `timeout` s.
    """
    try:
        return subprocess.run(
            list(command),
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors=errors,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildTimeout(f"`{shlex.join(command)}` did not end within {timeout:.0f} s") from error

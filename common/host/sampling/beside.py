# SPDX-License-Identifier: GPL-2.0-only
"""Starts and ends the sampler of the host beside a machine; see common/host/sampling/sampler.py."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.host.processes.precedence import prefer
from common.host.sampling.echo import Echo
from common.paths import CHECKOUT


@contextmanager
def host_sampler(folder: Path, qemu: int, echo: Echo) -> Iterator[None]:
    """A sampler that writes into `folder`, of the QEMU with that pid and of this process."""
    back = echo.back.fileno()
    command = [
        sys.executable,
        "-m",
        "common.host.sampling.sampler",
        "--folder",
        str(folder.resolve()),
    ]
    command += ["--pid", str(qemu), "--pid", str(os.getpid())]
    command += ["--port", str(echo.port), "--back", str(back)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, cwd=CHECKOUT, pass_fds=(back,), start_new_session=True
    )
    prefer(process.pid)
    try:
        yield
    finally:
        assert process.stdin
        process.stdin.close()
        process.wait(timeout=30)

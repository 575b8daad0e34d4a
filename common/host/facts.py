# SPDX-License-Identifier: GPL-2.0-only
"""Facts of the host: the line that every report has, and the memory that decides what fits."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from common.host.accel import Accelerator
from common.paths import CHECKOUT
from common.record.setting import Host


def describe_host(
    accelerator: Accelerator, versions: dict[str, str], emulator: Path, *, preferred: bool = False
) -> Host:
    """The host as it stands in the record."""
    return Host(
        cpu=_first("/proc/cpuinfo", "model name", ":"),
        cpus=len(os.sched_getaffinity(0)),
        memory_mib=_meminfo("MemTotal"),
        kernel=platform.release(),
        system=_first("/etc/os-release", "PRETTY_NAME", "=").strip('"'),
        accelerator=accelerator.name,
        accelerator_reason=accelerator.reason,
        preferred=preferred,
        emulator=str(emulator),
        versions=versions | {"python": platform.python_version()},
    )


def available_memory_mib() -> int:
    """Memory that can be had without swapping, in MiB (MemAvailable)."""
    return _meminfo("MemAvailable")


def checkout_commit() -> str:
    """This checkout's commit, 12 digits and "-dirty" where it is; "unknown" outside git."""
    done = subprocess.run(
        ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def _meminfo(key: str) -> int:
    return int(_first("/proc/meminfo", key, ":").split()[0]) // 1024


def _first(path: str, key: str, separator: str) -> str:
    for line in Path(path).read_text().splitlines():
        name, found, value = line.partition(separator)
        if found and name.strip() == key:
            return value.strip()
    return "unknown"

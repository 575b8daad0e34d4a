# SPDX-License-Identifier: GPL-2.0-only
"""What `demo` needs of the host, and whether it is there.

Programs and libraries are declared in common/host/debian-packages.txt and looked for by
common/host/make-ready, the same that the launcher asks: it and `doctor` cannot disagree. What the
launcher does not look at (Python packages, space, accelerator, kernels) is asked for here.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import tomllib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum
from importlib import metadata
from pathlib import Path

from common.arch.architecture import Architecture
from common.arch.known import DEFAULT
from common.errors import HarnessError
from common.host import accel
from common.host.debian import DEFAULT_PACKAGE
from common.host.facts import available_memory_mib
from common.host.processes.how_ended import how_ended
from common.paths import CHECKOUT, cache_root
from kernel.cache import list_entries
from kernel.source.source import GIVE, sources_root

LOOK_SECONDS = 60.0

# The source and its package take 2.2 GB; then two kernels a stage, their ccache, run folders.
DISK_GB_FIRST, DISK_GB_LATER = 4.0, 1.0
MEMORY_MIB = 1024


class State(Enum):
    """How a need stands. NOT_YET: `demo` makes it itself when it gets there."""

    OK = "ok"
    MISSING = "missing"
    TOO_OLD = "too old"
    TOO_LITTLE = "too little"
    NOT_YET = "not yet"

    @property
    def stops_demo(self) -> bool:
        """Whether `demo` cannot run before this is mended."""
        return self in (State.MISSING, State.TOO_OLD, State.TOO_LITTLE)


@dataclass(frozen=True)
class Requirement:
    """One line of doctor's table; `mend` is a command, or what to do; empty where all is well."""

    need: str
    found: str
    state: State
    mend: str = ""


def requirements(arch: Architecture = DEFAULT) -> list[Requirement]:
    """All that `demo` needs for that architecture, as it is on this machine now."""
    groups = ("base", "machine", arch.name)
    found = [processor(platform.machine()), *host_programs(_look(), groups)]
    found.append(python_packages((CHECKOUT / "pyproject.toml").read_text()))
    found += [_kernel_source(), _accelerator(arch)]
    found += [memory(available_memory_mib()), *_kernels_and_disk()]
    return found


def _look() -> str:
    done = subprocess.run(
        ["sh", str(CHECKOUT / "common" / "host" / "make-ready"), "look"],
        capture_output=True,
        text=True,
        timeout=LOOK_SECONDS,
        check=False,
    )
    if done.returncode:
        raise HarnessError(
            f"common/host/make-ready look: {how_ended(done.returncode, done.stderr)}"
        )
    return done.stdout


def host_programs(look: str, groups: Collection[str]) -> list[Requirement]:
    """Of the requirements that `make-ready look` printed those of these groups.

    One a line, fields separated by tabs.
    """
    found = []
    for line in look.splitlines():
        _, group, state, seen, _, _, minimum, name, _, mend = line.split("\t")
        if group not in groups:
            continue
        found.append(
            Requirement(
                need=name if minimum == "-" else f"{name} {minimum} or later",
                found="" if seen == "-" else seen,
                state=State(state),
                mend="" if mend == "-" else mend,
            )
        )
    return found


def processor(machine: str) -> Requirement:
    """Whether the host is of the only architecture on which kernels and workloads are built."""
    if machine == DEFAULT.host:
        return Requirement("x86-64 processor", machine, State.OK)
    return Requirement("x86-64 processor", machine, State.MISSING, "use an x86-64 machine")


def python_packages(pyproject: str) -> Requirement:
    """Whether this Python has what pyproject.toml pins, libvirt-python and the test's tools too."""
    project = tomllib.loads(pyproject)["project"]
    pins: list[str] = [*project["dependencies"], *project["optional-dependencies"]["machine"]]
    lacking = [pin for pin in pins if not _installed(pin)]
    need = "Python packages of pyproject.toml"
    if not lacking:
        return Requirement(need, str(len(pins)), State.OK)
    found = f"{len(pins) - len(lacking)} of {len(pins)}"
    return Requirement(need, found, State.NOT_YET, "./kexec-stages demo (installs them itself)")


def _installed(pin: str) -> bool:
    name, _, version = pin.partition("==")
    try:
        return metadata.version(name) == version
    except metadata.PackageNotFoundError:
        return False


def _kernel_source() -> Requirement:
    fetched = any(map(_is_default, sources_root().glob("*/source.json")))
    named = os.environ.get("KEXEC_STAGES_SOURCE")
    return kernel_source(named, fetched=fetched, debian=_is_debian())


def _is_debian() -> bool:
    """Others have no such package, Ubuntu included."""
    try:
        vendor = platform.freedesktop_os_release().get("ID")
    except OSError:
        return False
    return vendor == "debian" and shutil.which("apt-get") is not None


def kernel_source(named: str | None, *, fetched: bool, debian: bool) -> Requirement:
    """Whether there is a kernel to build, or a way to come by one.

    `named` is KEXEC_STAGES_SOURCE; `fetched` says that Debian's package is in the cache.
    """
    need = "the kernel's source"
    if named:
        there = Path(named).expanduser().exists()
        mend = "" if there else "set KEXEC_STAGES_SOURCE to a tree or a tarball"
        return Requirement(need, named, State.OK if there else State.MISSING, mend)
    if fetched:
        return Requirement(need, f"{DEFAULT_PACKAGE}, in the cache", State.OK)
    if debian:
        return Requirement(need, "", State.NOT_YET, "./kexec-stages demo (fetches it itself)")
    return Requirement(need, "", State.MISSING, GIVE)


def _is_default(record: Path) -> bool:
    try:
        facts = json.loads(record.read_text())
        return bool(facts["package"] == DEFAULT_PACKAGE) and "suite" not in facts
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _accelerator(arch: Architecture) -> Requirement:
    need = "accelerator (KVM, else TCG)"
    try:
        found = accel.probe(arch)
    except HarnessError:
        return Requirement(need, "", State.NOT_YET, "(is probed with QEMU)")
    return Requirement(need, f"{found.name}: {found.reason}", State.OK)


def memory(available_mib: int) -> Requirement:
    """Whether the machine of a stage with its default options has room."""
    need, found = f"{MEMORY_MIB} MiB of memory available", f"{available_mib} MiB"
    if available_mib >= MEMORY_MIB:
        return Requirement(need, found, State.OK)
    return Requirement(need, found, State.TOO_LITTLE, "end other programs")


def _kernels_and_disk() -> Iterable[Requirement]:
    root = cache_root()
    kernels = [entry.release for entry in list_entries()]
    place = root
    while not place.exists():
        place = place.parent
    yield kernel_cache(kernels)
    yield disk(shutil.disk_usage(place).free, kernels=len(kernels), root=root)


def kernel_cache(releases: list[str]) -> Requirement:
    """How many kernels are built; none is no fault, `demo` then builds them."""
    if releases:
        return Requirement("kernels in the cache", str(len(releases)), State.OK)
    return Requirement(
        "kernels in the cache", "none", State.NOT_YET, "./kexec-stages demo (builds them itself)"
    )


def disk(free: int, *, kernels: int, root: Path) -> Requirement:
    """Whether `root` has the bytes for the kernels; with some built already, a part will do."""
    wanted = DISK_GB_LATER if kernels else DISK_GB_FIRST
    need, found = f"{wanted:.0f} GB free in {root}", f"{free / 1e9:.1f} GB"
    if free >= wanted * 1e9:
        return Requirement(need, found, State.OK)
    mend = "make room there, or set KEXEC_STAGES_CACHE to another folder"
    return Requirement(need, found, State.TOO_LITTLE, mend)

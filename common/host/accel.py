# SPDX-License-Identifier: GPL-2.0-only
"""Which accelerator the machine can use: probed, never assumed.

That /dev/kvm exists says little: on a paravirtualised host (PVM) ``-accel kvm`` hangs in
the firmware, and many hosts offer no nested virtualisation. So QEMU is started with a
64 KiB firmware of our own that looks for SVM and VMX and answers through QEMU's
debug-exit port, within five seconds.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from common.arch.architecture import Architecture
from common.arch.known import DEFAULT
from common.errors import HarnessError
from common.host.processes.how_ended import how_ended
from common.host.qemu_binary import qemu_path
from common.paths import cache_root

_PROBE_SECONDS = 5
_NESTED, _NOT_NESTED = 0x2A, 0x15  # isa-debug-exit turns value v into exit status 2 v + 1


@dataclass(frozen=True)
class Accelerator:
    """`name` is "kvm" or "tcg"; `reason` says why, and stands in every report."""

    name: str
    reason: str


def probe(arch: Architecture = DEFAULT, *, wanted: str = "auto") -> Accelerator:
    """The accelerator to use. Cached per boot of this host, QEMU binary and /dev/kvm.

    `wanted` is auto, kvm or tcg; raises HarnessError when kvm is asked for and cannot be had.
    """
    if wanted == "tcg":
        return Accelerator("tcg", "asked for")
    found = _cached_probe() if arch is DEFAULT else _of_another(arch)
    if wanted == "kvm" and found.name != "kvm":
        raise HarnessError(f"no usable KVM here: {found.reason}; use --accel tcg")
    return found


def _of_another(arch: Architecture) -> Accelerator:
    """Of an architecture whose firmware there is none of to ask with."""
    host = platform.machine()
    if host != arch.host:
        return Accelerator("tcg", f"the host is {host}, the machine {arch.title}")
    return Accelerator("tcg", f"nested KVM is not probed for on {arch.title}")


def _cached_probe() -> Accelerator:
    path = cache_root() / "accelerator.json"
    key = _identity()
    try:
        stored = json.loads(path.read_text())
        if stored["key"] == key:
            return Accelerator(**stored["accelerator"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no or damaged cache: probe again
    found = _probe()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps({"key": key, "accelerator": asdict(found)}))
    part.replace(path)
    return found


def _identity() -> list[str | int]:
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    path = qemu_path()
    qemu = path.stat()
    try:
        kvm = Path("/dev/kvm").stat().st_mode
    except OSError:
        kvm = 0
    return [boot_id, str(path), qemu.st_size, qemu.st_mtime_ns, kvm, os.geteuid()]


def _probe() -> Accelerator:
    if not Path("/dev/kvm").exists():
        return Accelerator("tcg", "no /dev/kvm")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return Accelerator("tcg", "this user may not open /dev/kvm")
    return _try_firmware()


def _firmware() -> bytes:
    """64 KiB that report through the debug-exit port whether the CPU offers SVM or VMX."""
    code = bytes.fromhex(
        "66b801000080 0fa2 f6c104 7512"  # cpuid 0x80000001: ecx bit 2 (SVM) -> yes
        "66b801000000 0fa2 f6c120 7505"  # cpuid 1: ecx bit 5 (VMX) -> yes
        f"b0{_NOT_NESTED:02x} e6f4 f4"  # no:  out 0xf4
        f"b0{_NESTED:02x} e6f4 f4"  # yes: out 0xf4
    )
    image = bytearray(65536)
    image[0xFF00 : 0xFF00 + len(code)] = code
    image[0xFFF0:0xFFF3] = b"\xe9" + (0xFF00 - 0xFFF3 & 0xFFFF).to_bytes(2, "little")
    return bytes(image)


def _try_firmware() -> Accelerator:
    with tempfile.NamedTemporaryFile(prefix="kexec-stages-probe-") as firmware:
        firmware.write(_firmware())
        firmware.flush()
        command = [str(qemu_path()), "-accel", "kvm", "-cpu", "host", "-machine", DEFAULT.machine]
        command += ["-nodefaults", "-display", "none", "-m", "16", "-bios", firmware.name]
        command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return Accelerator(
                "tcg", f"/dev/kvm exists, but hangs in the first instructions ({_PROBE_SECONDS} s)"
            )
    if done.returncode == 2 * _NESTED + 1:
        return Accelerator("kvm", "probed: runs a firmware of ours, with nested SVM or VMX")
    if done.returncode == 2 * _NOT_NESTED + 1:
        return Accelerator("tcg", "/dev/kvm works, but offers neither SVM nor VMX to its guests")
    words = how_ended(done.returncode, done.stderr)
    return Accelerator("tcg", f"/dev/kvm exists, but QEMU cannot use it: {words}")

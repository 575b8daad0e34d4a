# SPDX-License-Identifier: GPL-2.0-only
"""The workload's program and the two initramfs it travels in."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common.arch.architecture import Architecture
from common.arch.known import DEFAULT
from common.errors import HarnessError
from common.host.processes.how_ended import how_ended
from common.paths import CHECKOUT, cache_root
from common.run.setup import RunSetup
from common.stage.declaration import LinuxGuest
from kernel.image.prebuilt import Bootable

_SKELETON = """\
dir /dev 755 0 0
nod /dev/console 600 0 0 c 5 1
dir /proc 555 0 0
dir /sys 555 0 0
dir /tmp 1777 0 0
dir /debugfs 755 0 0
"""


def build_workload(sources: Path, *, headers: Path, arch: Architecture = DEFAULT) -> Path:
    """The static /init of a folder with a Makefile, built against a kernel's uapi `headers`.

    Cached by the content of its sources and headers' version. Raises HarnessError with
    the compiler's message.
    """
    rooms = CHECKOUT / "common" / "workload"
    shared = [rooms / name for name in ("core", "vm", "device", "qemu", "damage")]
    shared.append(rooms / "arch" / arch.name)
    # Of a stage's second workload the first may be a part.
    shared += (
        [first] if (first := sources.parent / "workload") != sources and first.exists() else []
    )
    digest = hashlib.sha256(str(headers).encode())
    for path in sorted(p for d in (*shared, sources) for p in d.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(CHECKOUT)}\0".encode() + path.read_bytes() + b"\0")
    final = cache_root() / "workloads" / digest.hexdigest()[:24]
    if (final / "init").exists():
        return final / "init"
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix="build-") as build:
        command = ["make", "-s", "-j2", "-C", str(sources), f"O={build}", f"UAPI={headers}"]
        command += [f"MACHINE={arch.name}", f"CROSS={arch.cross_prefix}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = how_ended(done.returncode, done.stderr)
            details = done.stderr.strip().splitlines()[:40]
            raise HarnessError(f"the workload does not build: {said}", details=details)
        part = final.with_name(f"{final.name}.{os.getpid()}")
        part.mkdir()
        (Path(build) / "init").rename(part / "init")
        try:
            part.rename(final)
        except OSError:  # another process was first; what it made is the same
            (part / "init").unlink()
            part.rmdir()
    return final / "init"


def make_initramfs(files: dict[str, Path], *, gen_init_cpio: Path, target: Path) -> Path:
    """A cpio archive at `target` with `files` (path in the machine -> file on the host).

    Made by the kernel's own usr/gen_init_cpio. Raises HarnessError when that fails.
    """
    listing = _SKELETON
    folders = {str(Path(name).parent) for name in files} - {"/"}
    listing += "".join(f"dir {folder} 755 0 0\n" for folder in sorted(folders))
    listing += "".join(f"file {name} {path} 755 0 0\n" for name, path in files.items())
    with target.open("wb") as output:
        done = subprocess.run(
            [str(gen_init_cpio), "-t", "0", "-"],
            input=listing.encode(),
            stdout=output,
            stderr=subprocess.PIPE,
            check=False,
        )
    if done.returncode:
        said = how_ended(done.returncode, done.stderr.decode(errors="replace"))
        raise HarnessError(f"gen_init_cpio could not make {target}: {said}")
    return target


def pack(
    setup: RunSetup, outgoing: Bootable, following: Sequence[Bootable], workspace: Path
) -> Path:
    """The first initramfs; each carries the kernel that comes next and that one's initramfs."""
    tool = outgoing.gen_init_cpio
    files = {
        "/init": build_workload(
            setup.stage.sources, headers=outgoing.headers, arch=setup.stage.arch
        )
    }
    if setup.stage.guest:
        files |= _linux_guest(setup, setup.stage.guest, outgoing, workspace)
    elif setup.guest_image:
        files |= setup.guest_image.initramfs_files(workspace)
    return nested(files, following, gen_init_cpio=tool, workspace=workspace)


def _linux_guest(
    setup: RunSetup, guest: LinuxGuest, outgoing: Bootable, workspace: Path
) -> dict[str, Path]:
    """Path in the machine's initramfs -> file: a kernel (ours or the user's), an initramfs with our
    /init, and with the user's kernel its command line."""
    ours, image = setup.kernels.guest, setup.guest_image
    headers = (ours or outgoing).headers
    inside = {"/init": build_workload(guest.sources, headers=headers, arch=setup.stage.arch)}
    if image:
        files = image.kernel_files(workspace)
        inside |= image.module_files(workspace, guest.modules(setup.options))
    else:
        assert ours
        files = {"/guest/kernel": ours.image}
    initrd = workspace / "guest.cpio"
    make_initramfs(inside, gen_init_cpio=outgoing.gen_init_cpio, target=initrd)
    return files | {"/guest/initrd": initrd}


def nested(
    files: dict[str, Path], following: Sequence[Bootable], *, gen_init_cpio: Path, workspace: Path
) -> Path:
    """An initramfs of `files`, which carries the next kernel and its initramfs, and so on."""
    packed = make_initramfs(files, gen_init_cpio=gen_init_cpio, target=workspace / "last.cpio")
    for number, kernel in enumerate(reversed(following)):
        here = files | {"/incoming/kernel": kernel.image, "/incoming/initrd": packed}
        target = workspace / f"{number}.cpio"
        packed = make_initramfs(here, gen_init_cpio=gen_init_cpio, target=target)
    return packed

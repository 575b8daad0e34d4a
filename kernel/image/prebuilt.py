# SPDX-License-Identifier: GPL-2.0-only
"""A kernel that somebody else built: what its bzImage says, before it is booted.

The header's fields are those of Documentation/arch/x86/boot.rst. What is packed in the image is
unpacked by the kernel's own scripts/extract-vmlinux; its configuration, where IKCONFIG left one,
lies between the markers of kernel/configs.c.
"""

from __future__ import annotations

import gzip
import os
import re
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ValidationError

from common.paths import cache_root
from common.record.cpus.kernel_layout import KernelLayout
from kernel.cache import KEY_DIGITS, Kernel, file_sha256
from kernel.errors import MissingKconfig, SourceError
from kernel.image import elf, offers
from kernel.image.layout import layout_of
from kernel.make import config
from kernel.make.config import Loss
from kernel.system.process import clean_environment, run_captured

UNPACK_SECONDS = 60.0
_HEADER_BYTES = 0x268
# kernel/liveupdate: the format of LUO's state, which is in every kernel that has LUO
_LUO_ABI = re.compile(rb"\0luo-v\d+\0")
_IKCONFIG = re.compile(rb"IKCFG_ST(.*?)IKCFG_ED", re.DOTALL)


@dataclass(frozen=True)
class Prebuilt:
    """A kernel image of the user's. Of its source nothing is known.

    `config` is what IKCONFIG left in it, None without; `losses` what of the stage's fragments
    that does not grant. `tools` is a kernel of ours: what an image lacks to build a workload for
    it (uapi headers, gen_init_cpio) is taken from there.
    """

    image: Path
    key: str
    release: str
    build_id: str
    config: Path | None
    losses: tuple[Loss, ...]
    tools: Kernel
    patches: tuple[str, ...] = ()
    layout: KernelLayout | None = None
    offers: tuple[str, ...] = ()
    """See kernel/image/offers.py."""

    @property
    def source(self) -> str:
        """Where it came from, for people."""
        return f"prebuilt {self.image}, source unknown"

    @property
    def headers(self) -> Path:
        """The uapi headers that its workload is built with."""
        return self.tools.headers

    @property
    def gen_init_cpio(self) -> Path:
        """The program that makes its initramfs."""
        return self.tools.gen_init_cpio


Bootable = Kernel | Prebuilt


def offers_of(kernel: Bootable) -> tuple[str, ...]:
    """Names of the formats in the kernel's image; see kernel/image/offers.py."""
    return kernel.offers if isinstance(kernel, Prebuilt) else kept_offers(kernel.vmlinux)


class _Offers(BaseModel):
    """offers.json beside a kernel of the cache; `by` is the digest of what has looked."""

    by: str
    names: tuple[str, ...]


@lru_cache(maxsize=8)
def kept_offers(vmlinux: Path) -> tuple[str, ...]:
    """Those of a kernel of the cache, looked for once: that takes longer than to find the kernel.

    Kept beside it, until what looks for them changes.
    """
    kept, by = vmlinux.with_name("offers.json"), file_sha256(Path(offers.__file__))
    try:
        found = _Offers.model_validate_json(kept.read_text())
    except (OSError, ValidationError):
        found = None
    if found is None or found.by != by:
        found = _Offers(by=by, names=offers.offers_of_image(vmlinux.read_bytes()))
        part = kept.with_name(f".{kept.name}-{os.getpid()}")
        part.write_text(found.model_dump_json())
        part.replace(kept)
    return found.names


def prebuilt(image: Path, fragments: Sequence[Path], *, tools: Kernel, scripts: Path) -> Prebuilt:
    """The image, after a look into it; `scripts` are those of a kernel tree.

    Raises SourceError for what is no x86-64 bzImage, MissingKconfig for one without LUO.
    """
    path = image.expanduser().resolve()
    release = read_header(path)
    with tempfile.TemporaryDirectory(prefix="kexec-stages-image-") as folder:
        vmlinux = unpacked(path, scripts, Path(folder) / "vmlinux")
        content, build_id = vmlinux.read_bytes(), elf.build_id(vmlinux)
        layout = layout_of(vmlinux)
    if not _LUO_ABI.search(content):
        raise MissingKconfig(config.ESSENTIAL[1:], f"{image} (Linux {release}, a prebuilt image)")
    if build_id is None:
        raise SourceError(f"{image} has no GNU build id: no run could tell that it is running")
    key = file_sha256(path)[:KEY_DIGITS]
    text = embedded_config(content)
    wanted = config.requests(fragments)
    return Prebuilt(
        image=path,
        key=key,
        release=release,
        build_id=build_id,
        config=_kept(key, text) if text is not None else None,
        losses=tuple(config.losses(wanted.values(), text, set(wanted))) if text else (),
        tools=tools,
        layout=layout,
        offers=offers.offers_of_image(content),
    )


def read_header(image: Path) -> str:
    """The release of a bzImage, by its header. Raises SourceError where it is none."""
    try:
        with image.expanduser().open("rb") as file:
            data = file.read(1 << 16)
    except OSError as error:
        raise SourceError(f"cannot read the kernel image {image}: {error.strerror}") from error
    if len(data) < _HEADER_BYTES or data[0x202:0x206] != b"HdrS":
        raise SourceError(f"{image} is not a bzImage: it has no Linux boot header")
    protocol, version_at = struct.unpack_from("<H6xH", data, 0x206)
    loadflags, xloadflags = data[0x211], struct.unpack_from("<H", data, 0x236)[0]
    if protocol < 0x020C or not loadflags & 1 or not xloadflags & 1:
        raise SourceError(f"{image} is not a bzImage for x86-64")
    version = data[version_at + 0x200 :].split(b"\0", 1)[0].decode("ascii", "replace")
    if not version_at or not version:
        raise SourceError(f"{image} does not name its kernel version: it is not a bzImage of Linux")
    return version.split()[0]


def embedded_config(vmlinux: bytes) -> str | None:
    """The .config in an unpacked kernel with IKCONFIG, None where there is none."""
    found = _IKCONFIG.search(vmlinux)
    try:
        return gzip.decompress(found[1]).decode() if found else None
    except (OSError, EOFError, ValueError):
        return None


def unpacked(image: Path, scripts: Path, target: Path) -> Path:
    """The vmlinux that is packed in a bzImage, as `target`. Raises SourceError where it is none."""
    # into a file: what the script writes is no text
    command = ["sh", "-c", '"$1" "$2" >"$3"', "sh"]
    command += [str(scripts / "extract-vmlinux"), str(image), str(target)]
    done = run_captured(command, env=clean_environment(), timeout=UNPACK_SECONDS)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise SourceError(f"{image} cannot be unpacked: {said}")
    return target


def _kept(key: str, text: str) -> Path:
    """The configuration as a file in the cache, for the run folder to copy."""
    path = cache_root() / "images" / f"{key}.config"
    config.store(path, text)
    return path

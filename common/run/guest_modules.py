# SPDX-License-Identifier: GPL-2.0-only
"""The modules that our /init loads into a guest's kernel which is the user's.

Found as modprobe finds them, in what a package or `make modules_install` left in
lib/modules/RELEASE; depmod need not have been there.
"""

from __future__ import annotations

import gzip
import lzma
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from common.errors import UsageError

_DEPENDS = re.compile(rb"(?:\A|\0)depends=([^\0]*)\0")
_OPEN: Mapping[str, Callable[[bytes], bytes]] = {
    "": lambda packed: packed,
    ".gz": gzip.decompress,
    ".xz": lzma.decompress,
}
_ELF = b"\x7fELF"


def needed_modules(tree: Path, wanted: Sequence[str]) -> dict[str, bytes]:
    """File name (NAME.ko) -> content, uncompressed, in the order in which they can be loaded.

    What the kernel has built in is left out. Raises UsageError naming what is not there, or cannot
    be read.
    """
    files = {_name(path): path for path in tree.rglob("*.ko*") if ".ko" in path.suffixes}
    builtin = _builtin(tree)
    found: dict[str, bytes] = {}

    def add(name: str, of: str | None) -> None:
        key = _normal(name)
        if key in builtin or f"{key}.ko" in found:
            return
        if key not in files:
            why = f", which {of} needs" if of else ""
            raise UsageError(f"{tree} has no module {name}{why}, nor is it built in")
        content = _content(files[key])
        for depends in _depends(content):
            add(depends, name)
        found[f"{key}.ko"] = content

    for name in wanted:
        add(name, None)
    return found


def _normal(name: str) -> str:
    return name.replace("-", "_")


def _name(path: Path) -> str:
    return _normal(path.name.partition(".ko")[0])


def _builtin(tree: Path) -> set[str]:
    try:
        lines = (tree / "modules.builtin").read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{tree} is not a lib/modules/RELEASE: modules.builtin cannot be read ({error})"
        ) from error
    return {_name(Path(line)) for line in lines}


def _content(path: Path) -> bytes:
    unpack = _OPEN.get(path.name.partition(".ko")[2])
    if unpack is None:
        raise UsageError(f"{path} is compressed in a way that is not known: unpack it")
    try:
        content = unpack(path.read_bytes())
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not content.startswith(_ELF):
        raise UsageError(f"{path} is not a kernel module")
    return content


def _depends(content: bytes) -> list[str]:
    """By the module's own .modinfo."""
    found = _DEPENDS.search(content)
    return found[1].decode("ascii", "replace").split(",") if found and found[1] else []

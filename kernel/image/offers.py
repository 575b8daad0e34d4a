# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel can hand over: names of formats in its image, in its source, in a patch of it.

A format is named by a string that its writer puts beside the data and its reader looks for
("memfd-v2"), so that the string is in every kernel that knows it, whoever built it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_NAME = rb"(?:(?:kho|luo|memfd|(?:vfio-)?pci|iommu(?:fd)?)-(?:live-)?v[0-9]{1,3}|iommu-liveupdate)"
# A scan for what all of them end in, and a look back: several times faster than for _NAME itself.
_END = re.compile(rb"(?:-v[0-9]{1,3}|iommu-liveupdate)\0")
_LONGEST = 48
_WHOLE = re.compile(rb"(?<![\w-])" + _NAME + rb"\Z")
_DEFINED = re.compile(rb"^\+?#define\s+\w*(?:COMPATIBLE|VERSION)\w*\s+\"(" + _NAME + rb")\"", re.M)
_HEADERS = "include/linux/kho/abi"


def offers_of_image(vmlinux: bytes) -> tuple[str, ...]:
    """Of an unpacked kernel, sorted."""
    found = set()
    for match in _END.finditer(vmlinux):
        end = match.end() - 1
        if name := _WHOLE.search(vmlinux[max(0, end - _LONGEST) : end]):
            found.add(name[0].decode())
    return tuple(sorted(found))


def offers_of_tree(tree: Path) -> tuple[str, ...]:
    """Of a kernel's source, sorted: what its headers define for the kernel that comes after."""
    return _defined(path.read_bytes() for path in sorted((tree / _HEADERS).glob("*.h")))


def offers_of_patches(patches: Iterable[Path]) -> tuple[str, ...]:
    """What patches add to such headers, sorted."""
    return _defined(path.read_bytes() for path in patches)


def _defined(texts: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(sorted({name.decode() for text in texts for name in _DEFINED.findall(text)}))

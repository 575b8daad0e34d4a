# SPDX-License-Identifier: GPL-2.0-only
"""File and line of an instruction of a kernel that was built here.

A vmlinux with line tables says it. Without them the one object file in which the function stands
is compiled once more, by the command that made it, with line tables beside the same code.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from common.record.cpus.kernel_symbols import symbols_of
from kernel.cache import OBJECTS, PARTIAL, Kernel, build_lock_path
from kernel.source.source import lock_path, sources_root
from kernel.system.lock import try_lock

_SECONDS = 60.0
_NAME = re.compile(r"([A-Za-z_][\w.]*)\+(0x[0-9a-f]+)/(0x[0-9a-f]+)$")
_TABLE = re.compile(r"^([0-9a-f]+) .{7} (\S+)\s+([0-9a-f]+) (?:\.hidden )?(\S+)$", re.MULTILINE)
_SAVED = re.compile(r"^savedcmd_\S+ := (.*)$", re.MULTILINE)
_MOST, _MOST_FOLDERS = 3, 3


@dataclass(frozen=True)
class _Place:
    function: str
    offset: int
    size: int


def lines_of(kernel: Kernel, names: Iterable[str]) -> dict[str, str]:
    """ "function+offset/size" -> "file:line" relative to the tree, for those that can be resolved.

    Best effort: an error leaves a name out. Only the first `_MOST` names are tried.
    """
    found: dict[str, str] = {}
    for name in list(dict.fromkeys(names))[:_MOST]:
        parts = _NAME.match(name)
        if parts is None:
            continue
        place = _Place(parts[1], int(parts[2], 16), int(parts[3], 16))
        try:
            line = _by_vmlinux(kernel, place) or _by_object(kernel, place)
        except (OSError, subprocess.SubprocessError):
            line = None
        if line:
            found[name] = line
    return found


def _by_vmlinux(kernel: Kernel, place: _Place) -> str | None:
    if "KCFLAGS=-g1" not in kernel.meta.flags:
        return None
    symbol = symbols_of(kernel.vmlinux).named(place.function)
    return _addr2line(kernel.vmlinux, symbol.address + place.offset, None) if symbol else None


def _by_object(kernel: Kernel, place: _Place) -> str | None:
    """By the kernel's own build folder, or, where that is gone, by one of a kernel like it.

    What makes it right is that the function comes out as long as it is in the kernel.
    """
    tree = sources_root() / kernel.meta.worktree / "tree"
    with ExitStack() as stack:
        if not tree.exists() or not _held(stack, lock_path(f"source-{kernel.meta.worktree}")):
            return None
        scratch = Path(stack.enter_context(TemporaryDirectory(prefix="kexec-stages-lines-")))
        for folder in _build_folders(tree, kernel.key):
            if not _held(stack, build_lock_path(folder.name.removeprefix(OBJECTS))):
                continue
            made = _object_of(folder, place.function)
            again = _compiled_again(folder, made, tree, scratch / "again.o") if made else None
            if again and (line := _in_object(again, place)):
                return line
    return None


def _held(stack: ExitStack, path: Path) -> bool:
    """Whether what this lock protects stays as it is until the stack is left."""
    lock = try_lock(path, exclusive=False)
    if lock:
        stack.callback(lock.close)
    return lock is not None


def _build_folders(tree: Path, key: str) -> list[Path]:
    """The kernel's own, then those of the same tree, then the newest others; a few."""
    found = [path for path in sources_root().glob(f"*/tree/{OBJECTS}*") if path.is_dir()]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    found.sort(key=lambda path: (path.name != f"{OBJECTS}{key}", path.parent != tree))
    return [path for path in found if not path.name.endswith(PARTIAL)][:_MOST_FOLDERS]


def _object_of(folder: Path, function: str) -> str | None:
    """The object file, relative to the build folder, in which the function is."""
    wanted = re.compile(rf"^[0-9a-f]+ [0-9a-f]+ [tTwW] {re.escape(function)}$", re.MULTILINE)
    named = _run(["grep", "-rlF", "--include=*.o", "-e", function, "."], folder).splitlines()
    found = (n for n in named if wanted.search(_run(["nm", "-S", "--defined-only", n], folder)))
    return next(found, None)


def _compiled_again(folder: Path, made: str, tree: Path, target: Path) -> Path | None:
    """The object once more, with line tables, of the source in `tree`; None where that failed."""
    path = folder / made
    saved = _SAVED.search((path.parent / f".{path.name}.cmd").read_text())
    if saved is None:
        return None
    words = shlex.split(saved[1].split(" ; ")[0])
    words = [word for word in words if not word.startswith("-Wp,-MMD,") and word != "ccache"]
    if "-o" not in words:
        return None
    words[words.index("-o") + 1] = str(target)
    # Commands are relative to a build folder, whose parent is its source.
    words = [re.sub(r"^(-I)?\.\./", lambda m: f"{m[1] or ''}{tree}/", word) for word in words]
    target.unlink(missing_ok=True)
    _run([words[0], "-g1", *words[1:]], folder)
    return target if target.exists() else None


def _in_object(path: Path, place: _Place) -> str | None:
    for address, section, size, name in _TABLE.findall(_run(["objdump", "-t", str(path)], None)):
        if name == place.function and int(size, 16) == place.size:
            return _addr2line(path, int(address, 16) + place.offset, section)
    return None


def _addr2line(path: Path, address: int, section: str | None) -> str | None:
    within = ["-j", section] if section else []
    told = _run(["addr2line", "-i", "-e", str(path), *within, f"{address:#x}"], None).split("\n")
    # Of what is inlined the last line is that of the function which is named.
    said = next((line for line in reversed(told) if line), "")
    if not said or said.startswith("??") or said.endswith(":?"):
        return None
    line = re.sub(rf"^.*/tree/(?:{re.escape(OBJECTS)}[^/]*/)?", "", said.split(" ")[0])
    return re.sub(r"^(?:\.\./)+", "", line)


def _run(command: list[str], folder: Path | None) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    return done.stdout

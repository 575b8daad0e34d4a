# SPDX-License-Identifier: GPL-2.0-only
"""The content of a source tree as a value: path -> mode and digest of every file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from kernel.errors import SourceError

Manifest = dict[str, str]
"""Path relative to the tree -> "x" (executable), "f" or "l" (link), then 32 hex digits."""

StatCache = dict[str, list[int | str]]
"""Path -> size, mtime (ns), ctime (ns), inode, manifest value, as of the last scan."""

# A file written within the clock's granularity of the scan could change again unseen.
RACY_NS = 2_000_000_000

OLD = 946_684_800  # 2000-01-01


def _digest(path: Path, info: os.stat_result) -> str:
    if stat.S_ISLNK(info.st_mode):
        return "l" + hashlib.sha256(bytes(path.readlink())).hexdigest()[:32]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:32]
    return ("x" if info.st_mode & 0o100 else "f") + digest


def scan(tree: Path, files: Iterable[str], known: StatCache) -> tuple[Manifest, StatCache]:
    """The manifest of `files` below `tree`, and what lets the next scan skip unchanged ones.

    A file whose size, times and inode stand unchanged in `known` is not read again: ctime is
    among them, so setting mtime back does not hide a change. Names that are gone, and folders
    (submodules), are left out. Raises SourceError naming the file that cannot be read.
    """
    manifest: Manifest = {}
    cache: StatCache = {}
    racy = time.time_ns() - RACY_NS
    for name in files:
        path = tree / name
        try:
            info = path.lstat()
            if not (stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode)):
                continue
            seen = [info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino]
            old = known.get(name)
            unchanged = old is not None and old[:4] == seen
            value = str(old[4]) if old is not None and unchanged else _digest(path, info)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}") from error
        manifest[name] = value
        if info.st_ctime_ns < racy:
            cache[name] = [*seen, value]
    return manifest, cache


def walk(tree: Path) -> list[str]:
    """All files and links below `tree`, sorted, without `.git` and folders of objects."""
    found: list[str] = []
    for folder, dirs, names in os.walk(tree):
        dirs[:] = [d for d in dirs if d != ".git" and not d.startswith(".o-")]
        links = [d for d in dirs if Path(folder, d).is_symlink()]
        prefix = os.path.relpath(folder, tree)
        for name in [*names, *links]:
            found.append(name if prefix == "." else f"{prefix}/{name}")
    return sorted(found)


def digest(manifest: Mapping[str, str]) -> str:
    """One hex digest of the whole content; the order of the mapping does not matter."""
    whole = hashlib.sha256()
    for name in sorted(manifest):
        whole.update(f"{manifest[name]} {name}\n".encode(errors="surrogateescape"))
    return whole.hexdigest()


def difference(old: Mapping[str, str], new: Mapping[str, str]) -> set[str]:
    """The paths that are in one only, or differ."""
    return {name for name, _ in old.items() ^ new.items()}


def link_tree(manifest: Mapping[str, str], source: Path, target: Path) -> None:
    """`target` holds the manifest's files as hard links to those below `source`."""
    made: set[str] = set()
    for name in manifest:
        folder = name.rpartition("/")[0]
        if folder not in made:
            (target / folder).mkdir(parents=True, exist_ok=True)
            made.add(folder)
        _link(source / name, target / name)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        # a file system without hard links, or their limit reached
        shutil.copy2(source, target, follow_symlinks=False)


def copy_tree(
    manifest: Mapping[str, str],
    source: Path,
    target: Path,
    *,
    older: Path | None,
    older_manifest: Mapping[str, str],
) -> None:
    """`target` holds the manifest's files: linked where `older` has the same, else copied.

    Copies are old (see age()). Raises SourceError when a file is not (any more) what the manifest
    says it is.
    """
    made: set[str] = set()
    for name, value in manifest.items():
        folder = name.rpartition("/")[0]
        if folder not in made:
            (target / folder).mkdir(parents=True, exist_ok=True)
            made.add(folder)
        if older is not None and older_manifest.get(name) == value:
            _link(older / name, target / name)
            continue
        copy = target / name
        try:
            shutil.copyfile(source / name, copy, follow_symlinks=False)
            if value[0] == "x":
                copy.chmod(0o755)
            same = _digest(copy, copy.lstat()) == value
        except FileNotFoundError:
            same = False
        if not same:
            raise SourceError(f"{source / name} was changed while the tree was being read")
        age(copy)


def age(path: Path) -> None:
    """The file is older than any object, so that make leaves alone what was made of its content."""
    os.utime(path, (OLD, OLD), follow_symlinks=False)


def renew(path: Path) -> None:
    """The file is an inode of its own with a mtime of now; its other links stay as they are."""
    if path.is_symlink() or not path.exists():
        return
    copy = path.with_name(f".renew-{os.getpid()}-{path.name}")
    shutil.copyfile(path, copy)
    shutil.copymode(path, copy)
    copy.replace(path)


def load(path: Path) -> Manifest:
    """The manifest stored at `path`, empty where there is none."""
    try:
        stored = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return dict(stored)


def store(path: Path, manifest: Mapping[str, str]) -> None:
    """The manifest stands at `path`, whole or not at all."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_text(json.dumps(manifest))
    temporary.replace(path)

# SPDX-License-Identifier: GPL-2.0-only
"""The cache of finished kernels: content-addressed, published whole or not at all."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from common.arch.known import ARCHITECTURES, DEFAULT
from common.paths import cache_root
from kernel.errors import SourceError
from kernel.source.source import lock_path, sources_root
from kernel.system.lock import Lock, try_lock

FORMAT = 1
KEY_DIGITS = 32

# A build folder has about 110 MB, a patched worktree 30 MB of folders: a bisection must not
# fill the disk, yet the next kernel of each stage should find a seed, its own configuration's.
KEPT_OBJECTS = 8
KEPT_CONFIGS = 6
KEPT_WORKTREES = 8

VMLINUX = "vmlinux"
SYSTEM_MAP = "System.map"
CONFIG = "config"
HEADERS = "headers"
GEN_INIT_CPIO = "gen_init_cpio"
LOG = "build.log"
META = "meta.json"
USED = "used.json"
OBJECTS = ".o-"
PARTIAL = ".partial"


class FileMeta(BaseModel):
    """Size in bytes and SHA-256 of a file of an entry."""

    model_config = ConfigDict(frozen=True)

    size: int
    sha256: str


class Meta(BaseModel):
    """What an entry was made of and how its build went; stored as meta.json.

    `patches` are names and SHA-256 digests, `compiled_files` what this build had to compile
    itself, beginning from `seed` (another kernel's key), from which it differs by `seed_relation`.
    """

    model_config = ConfigDict(frozen=True)

    format: int
    arch: str = DEFAULT.name
    key: str
    label: str
    localversion: str
    source: str
    source_identity: str
    source_version: str
    source_facts: dict[str, str]
    worktree: str
    patches: list[tuple[str, str]]
    fragments: list[str]
    requests: str
    compiler: str
    flags: list[str]
    config_sha256: str
    release: str
    build_id: str
    created: datetime.datetime
    seconds: dict[str, float]
    compiled_files: int
    seed: str | None
    seed_relation: str
    files: dict[str, FileMeta]
    header_bytes: int

    @property
    def image(self) -> str:
        """The name of the image's file. Raises KeyError for an architecture that is unknown."""
        return ARCHITECTURES[self.arch].image_goal


@dataclass(frozen=True)
class Kernel:
    """A finished kernel; its entry cannot be pruned while this value lives.

    `headers` is the folder whose `include/` is what `make headers` exports; `build_id` is the
    GNU build id as the running kernel has it in /sys/kernel/notes, in hex.
    """

    key: str
    release: str
    build_id: str
    image: Path
    vmlinux: Path
    system_map: Path
    config: Path
    headers: Path
    gen_init_cpio: Path
    log: Path
    meta: Meta
    lock: Lock = field(repr=False, compare=False)

    @property
    def source(self) -> str:
        """Where the source came from, for people."""
        return self.meta.source

    @property
    def patches(self) -> tuple[str, ...]:
        """The patches in their order: name and the first digits of the SHA-256."""
        return tuple(f"{name} {digest[:12]}" for name, digest in self.meta.patches)


@dataclass(frozen=True)
class Entry:
    """One line of `kernel list`; times in seconds since the epoch, `in_use` while a run holds it.

    `size` is in bytes on disk, without what can be shared with other kernels (source, objects).
    """

    key: str
    release: str
    source: str
    label: str
    size: int
    created: float
    used: float
    in_use: bool


@dataclass(frozen=True)
class Pruned:
    """What prune() removed, what it left because it is in use, about how many bytes it freed."""

    removed: tuple[Entry, ...]
    in_use: tuple[Entry, ...]
    freed: int


def kernels_root() -> Path:
    """The folder of finished kernels."""
    return cache_root() / "kernels"


def use_lock_path(key: str) -> Path:
    """The lock of a key's entry: shared by those who use it, exclusive to remove it."""
    return lock_path(f"kernel-{key}")


def build_lock_path(key: str) -> Path:
    """The lock of a key's build folder: exclusive to build in it or to remove it."""
    return lock_path(f"build-{key}")


def load(key: str, lock: Lock, label: str | None = None) -> Kernel | None:
    """The entry of `key`, None when there is none or it is damaged; notes its use for `label`."""
    folder = kernels_root() / key
    meta = read_meta(folder)
    if meta is None or not _intact(folder, meta):
        return None
    _note_use(folder, label)
    return Kernel(
        key=key,
        release=meta.release,
        build_id=meta.build_id,
        image=folder / meta.image,
        vmlinux=folder / VMLINUX,
        system_map=folder / SYSTEM_MAP,
        config=folder / CONFIG,
        headers=folder / HEADERS,
        gen_init_cpio=folder / GEN_INIT_CPIO,
        log=folder / LOG,
        meta=meta,
        lock=lock,
    )


def read_meta(folder: Path) -> Meta | None:
    """The record of an entry, None where it cannot be read or is of another format."""
    try:
        meta = Meta.model_validate_json((folder / META).read_text())
    except (OSError, ValidationError):
        return None
    return meta if meta.format == FORMAT else None


def _intact(folder: Path, meta: Meta) -> bool:
    """All files have their size, and the image that is booted has its digest."""
    try:
        if content_size(folder / HEADERS) != meta.header_bytes:
            return False
        if any((folder / name).stat().st_size != info.size for name, info in meta.files.items()):
            return False
        return file_sha256(folder / meta.image) == meta.files[meta.image].sha256
    except (OSError, KeyError):
        return False


def content_size(folder: Path) -> int:
    """The bytes in all files below `folder`."""
    return sum(
        Path(parent, name).stat().st_size for parent, _, names in os.walk(folder) for name in names
    )


def file_sha256(path: Path) -> str:
    """The SHA-256 of the file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _labels(folder: Path) -> list[str]:
    try:
        return [str(label) for label in json.loads((folder / USED).read_text())]
    except (OSError, ValueError):
        return []


def _note_use(folder: Path, label: str | None) -> None:
    labels = _labels(folder)
    if label is not None and label not in labels:
        labels.append(label)
    temporary = folder / f".{USED}-{os.getpid()}"
    temporary.write_text(json.dumps(labels))
    temporary.replace(folder / USED)


def publish(work: Path, meta: Meta) -> None:
    """The files in `work` are the entry of meta.key, visible at once and on disk."""
    (work / META).write_text(meta.model_dump_json(indent=1) + "\n")
    # a rename that survives a power cut must not point to files that did not; the headers are
    # a thousand files, so load() counts their bytes instead
    for path in work.iterdir():
        _sync(path)
    _sync(work)
    target = kernels_root() / meta.key
    shutil.rmtree(target, ignore_errors=True)
    work.rename(target)
    _sync(kernels_root())


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def folder_size(folder: Path) -> int:
    """The bytes on disk of all that is below `folder`; linked files count by their share."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                info = Path(parent, name).lstat()
            except FileNotFoundError:
                continue
            total += info.st_blocks * 512 // max(1, info.st_nlink)
    return total


def list_entries() -> list[Entry]:
    """All finished kernels, the last used first."""
    found: list[Entry] = []
    for folder in kernels_root().glob("[0-9a-f]*"):
        meta = read_meta(folder)
        if meta is None:
            continue
        try:
            used = (folder / USED).stat().st_mtime
        except OSError:
            used = meta.created.timestamp()
        lock = try_lock(use_lock_path(meta.key), exclusive=True)
        if lock is not None:
            lock.close()
        found.append(
            Entry(
                key=meta.key,
                release=meta.release,
                source=meta.source,
                label=", ".join(_labels(folder)) or meta.label,
                size=folder_size(folder),
                created=meta.created.timestamp(),
                used=used,
                in_use=lock is None,
            )
        )
    return sorted(found, key=lambda entry: entry.used, reverse=True)


def prune(*, keep: int | None = None, older_than_days: float | None = None) -> Pruned:
    """What was removed: all entries but the `keep` last used, or those unused for so many days.

    Build folders and worktrees that only removed entries needed go with them; keep=0 removes
    everything that can be made again. What is in use or being built is never touched.
    """
    if keep is None and older_than_days is None:
        raise ValueError("prune() needs to be told what to keep")
    if (keep or 0) < 0 or (older_than_days or 0) < 0:
        raise SourceError("what to keep in the cache cannot be negative")
    entries = list_entries()
    doomed = entries[keep:] if keep is not None else entries
    if older_than_days is not None:
        oldest = time.time() - older_than_days * 86400
        doomed = [entry for entry in doomed if entry.used < oldest]
    removed: list[Entry] = []
    left: list[Entry] = []
    freed = 0
    for entry in doomed:
        if _remove(kernels_root() / entry.key, use_lock_path(entry.key)):
            removed.append(entry)
            freed += entry.size
        else:
            left.append(entry)
    kept = {entry.key for entry in entries} - {entry.key for entry in removed}
    freed += _remove_unreadable() + _remove_objects(kept) + _remove_worktrees(_needed())
    if keep == 0 and not left:
        for name in ("ccache", "trees", "configs", "images"):
            freed += _erase(cache_root() / name)
    return Pruned(tuple(removed), tuple(left), freed)


def trim() -> None:
    """Only the last few build folders and worktrees are left; finished kernels all stay."""
    newest = sorted(_object_folders(), key=lambda folder: folder.stat().st_mtime, reverse=True)
    kept = [*newest[:KEPT_OBJECTS], *_of_each_config(newest)[:KEPT_CONFIGS]]
    _remove_objects({_key_of(folder) for folder in kept})
    trees = sorted(
        (record for record in sources_root().glob("*/source.json") if not _is_package(record)),
        key=lambda record: record.parent.stat().st_mtime,
        reverse=True,
    )
    used = {folder.parent.parent.name for folder in kept}
    _remove_worktrees({r.parent.name for r in trees[:KEPT_WORKTREES]} | used | _packages())


def _of_each_config(folders: Iterable[Path]) -> list[Path]:
    """The first folder of each configuration; one that is not configured yet is none of any."""
    found: dict[str, Path] = {}
    for folder in folders:
        with suppress(OSError):
            found.setdefault(file_sha256(folder / ".config"), folder)
    return list(found.values())


def _erase(folder: Path) -> int:
    size = folder_size(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return size


def _remove(folder: Path, lock_file: Path) -> bool:
    """Whether nobody used the folder, so that it is gone now."""
    lock = try_lock(lock_file, exclusive=True)
    if lock is None:
        return False
    with lock:
        # renamed first: a removal that is cut short leaves no half of an entry
        grave = folder.with_name(f".grave-{os.getpid()}-{folder.name}")
        try:
            folder.rename(grave)
        except FileNotFoundError:
            return True
        shutil.rmtree(grave, ignore_errors=True)
        lock.discard()
    return True


def _remove_unreadable() -> int:
    """The bytes of entries of another format and of what killed processes left behind."""
    freed = 0
    for folder in kernels_root().glob("*"):
        key = folder.name.removeprefix(".partial-")
        if folder.name.startswith(".grave-"):
            freed += _erase(folder)
        elif folder.name.startswith(".partial-") or read_meta(folder) is None:
            size = folder_size(folder)
            lock_file = build_lock_path(key) if key != folder.name else use_lock_path(key)
            freed += size if _remove(folder, lock_file) else 0
    for folder in sources_root().glob(".*"):
        name = folder.name.removeprefix(".")
        lock_file = lock_path(name if name.startswith("fetch-") else f"source-{name[8:]}")
        if name.startswith("grave-"):
            freed += _erase(folder)
        elif name.startswith(("fetch-", "partial-")):
            size = folder_size(folder)
            freed += size if _remove(folder, lock_file) else 0
    return freed


def _object_folders() -> list[Path]:
    return list(sources_root().glob(f"*/tree/{OBJECTS}*"))


def _key_of(folder: Path) -> str:
    return folder.name.removeprefix(OBJECTS).removesuffix(PARTIAL)


def _remove_objects(kept: set[str]) -> int:
    """The bytes of all build folders but those of the kept keys and those being built in."""
    freed = 0
    for folder in _object_folders():
        if (key := _key_of(folder)) not in kept:
            size = folder_size(folder)
            freed += size if _remove(folder, build_lock_path(key)) else 0
    return freed


def _remove_worktrees(needed: set[str]) -> int:
    """The bytes of all sources but the needed ones and those in use."""
    freed = 0
    for record in sources_root().glob("*/source.json"):
        ident = record.parent.name
        if ident not in needed:
            size = folder_size(record.parent)
            freed += size if _remove(record.parent, lock_path(f"source-{ident}")) else 0
    return freed


def _needed() -> set[str]:
    """The worktrees of the entries that there are, and what those are patched copies of."""
    needed: set[str] = set()
    for folder in kernels_root().glob("[0-9a-f]*"):
        if (meta := read_meta(folder)) is not None:
            needed |= {meta.worktree, meta.source_identity[:24]}
    return needed


def _is_package(record: Path) -> bool:
    try:
        return "package" in json.loads(record.read_text())
    except (OSError, ValueError):
        return False


def _packages() -> set[str]:
    return {r.parent.name for r in sources_root().glob("*/source.json") if _is_package(r)}

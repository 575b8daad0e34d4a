# SPDX-License-Identifier: GPL-2.0-only
"""A kernel's source from the user's tarball, for hosts without apt.

It is unpacked once, into the cache; a tarball of the same content, or a tree of it, gives the same
kernels. Its digest stands in every record. Where a list of digests lies beside it (kernel.org's
sha256sums.asc, or SHA256SUMS), the tarball has to be in there as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

from kernel.errors import SourceError
from kernel.events import Noted, Phase, Progress, Started, Waiting, quiet
from kernel.source import manifest as manifests
from kernel.source.source import (
    UNPACK_SECONDS,
    Source,
    SourceKind,
    kernel_version,
    lock_path,
    sources_root,
)
from kernel.system.lock import wait_lock
from kernel.system.process import clean_environment, polite, run_captured
from kernel.system.space import FETCH_BYTES, disk_errors_told, require_space

LISTS = ("sha256sums.asc", "SHA256SUMS")
_LINE = re.compile(r"^([0-9a-f]{64}) [ *](\S+)$", re.MULTILINE)
_MOST_LIST_BYTES = 4 << 20


@disk_errors_told()
def archive_source(path: Path, *, progress: Progress = quiet) -> Source:
    """The source in a tarball, unpacked in the cache; only read.

    Raises SourceError for what is none, or is not what a list of digests beside it says.
    """
    path = path.expanduser()
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"cannot read the source {path}: {error.strerror}") from error
    if found := _unpacked(digest):
        _check(path, digest)
        return found
    progress(Noted(_check(path, digest)))
    lock = wait_lock(
        lock_path(f"unpack-{digest[:24]}"),
        exclusive=True,
        waiting=lambda pid: progress(Waiting(f"{path.name} to be unpacked", pid)),
        timeout=UNPACK_SECONDS,
    )
    with lock:
        return _unpacked(digest) or _unpack(path, digest, progress)


def _check(path: Path, digest: str) -> str:
    """What the tarball's digest was checked against, in words. Raises SourceError."""
    for name in LISTS:
        beside = path.resolve().with_name(name)
        if not beside.is_file():
            continue
        with beside.open(errors="replace") as file:
            listed = {name: known for known, name in _LINE.findall(file.read(_MOST_LIST_BYTES))}
        known = listed.get(path.name)
        if known is None:
            raise SourceError(f"{beside} does not name {path.name}")
        if known != digest:
            raise SourceError(f"{path} has SHA-256 {digest}; {beside} says {known}")
        return f"{path.name} matches {name} next to it: SHA-256 {digest}"
    return (
        f"{path.name} has SHA-256 {digest}; nothing here verifies it (put kernel.org's"
        f" {LISTS[0]} next to it to have it checked)"
    )


def _unpacked(digest: str) -> Source | None:
    for record in sources_root().glob("*/source.json"):
        try:
            facts = json.loads(record.read_text())
        except (OSError, ValueError):
            continue
        if facts.get("archive_sha256") == digest:
            return _source(record.parent / "tree", facts)
    return None


def _source(tree: Path, facts: dict[str, str]) -> Source:
    digest = facts["archive_sha256"]
    return Source(
        path=tree,
        identity=facts["identity"],
        label=f"{facts['archive']} (SHA-256 {digest[:12]})",
        version=facts["version"],
        kind=SourceKind.ARCHIVE,
        facts=tuple(sorted(facts.items())),
    )


def _unpack(path: Path, digest: str, progress: Progress) -> Source:
    root = sources_root()
    require_space(root, FETCH_BYTES, f"unpacking {path.name}")
    # The name is the lock's, so what a killed process left is ours to remove.
    work = root / f".unpack-{digest[:24]}"
    shutil.rmtree(work, ignore_errors=True)
    tree = work / "tree"
    tree.mkdir(parents=True)
    try:
        progress(Started(Phase.UNPACK, path.name))
        done = run_captured(
            polite(["tar", "--strip-components=1", "--no-same-owner", "-xf", str(path.resolve())]),
            cwd=tree,
            env=clean_environment(),
            timeout=UNPACK_SECONDS,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["tar gives no reason"])[-1]
            raise SourceError(f"{path} could not be unpacked: {last}")
        version = kernel_version(tree)
        content, _ = manifests.scan(tree, manifests.walk(tree), {})
        manifests.store(work / "manifest.json", content)
        facts = {
            "archive": path.name,
            "archive_sha256": digest,
            "identity": manifests.digest(content),
            "version": version,
        }
        (work / "source.json").write_text(json.dumps(facts))
        target = root / facts["identity"][:24]
        if target.exists():  # a copy of a tree with the same content
            shutil.copyfile(work / "source.json", target / "source.json")
        else:
            work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return _source(target / "tree", facts)

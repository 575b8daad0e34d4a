# SPDX-License-Identifier: GPL-2.0-only
"""The trees that kernels are built in: copies of a source, patched, never changed afterwards.

A build folder is a direct subfolder of its worktree (`.o-KEY`). kbuild then names the source
`..`, so no recorded command and no compiler argument holds an absolute path: objects can be
carried over to another worktree, and ccache hits wherever the content is the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernel.errors import FetchError, PatchError, SourceError, ToolMissing
from kernel.events import Phase, Progress, Started, Waiting
from kernel.source import manifest as manifests
from kernel.source.manifest import Manifest
from kernel.source.source import Source, SourceKind, lock_path, sources_root, tree_manifest
from kernel.system.lock import POLL_SECONDS, Lock, try_lock, wait_lock
from kernel.system.process import clean_environment, run_captured
from kernel.system.space import LINKED_TREE_BYTES, require_space

PREPARE_SECONDS = 1800.0
PATCH_SECONDS = 60.0


@dataclass(frozen=True)
class Worktree:
    """A source with its patches, kept from being pruned while `lock` is held."""

    path: Path
    ident: str
    lock: Lock

    def manifest(self) -> Manifest:
        """The content of the tree."""
        return manifests.load(self.path.parent / "manifest.json")


def prepare(source: Source, patches: Sequence[Path], progress: Progress) -> Worktree:
    """The source with the patches applied, made now or found; its lock is held shared."""
    base = _obtain(
        source.identity[:24], f"a copy of {source.label}", progress, lambda: _copy(source, progress)
    )
    if not patches:
        return base
    whole = hashlib.sha256(source.identity.encode())
    for patch in patches:
        whole.update(_patch_digest(patch))
    with base.lock:
        return _obtain(
            whole.hexdigest()[:24],
            f"{source.label} with {len(patches)} patches",
            progress,
            lambda: _patched(base, patches, whole.hexdigest()[:24], progress),
        )


def _patch_digest(patch: Path) -> bytes:
    try:
        return hashlib.sha256(patch.read_bytes()).digest()
    except OSError as error:
        raise SourceError(f"cannot read the patch {patch}: {error.strerror}") from error


def _obtain(ident: str, what: str, progress: Progress, make: Callable[[], None]) -> Worktree:
    """The worktree `ident`, made by `make` when it is not there; one process makes, others wait."""
    lock_file = lock_path(f"source-{ident}")
    tree = sources_root() / ident / "tree"
    while True:
        shared = wait_lock(
            lock_file,
            exclusive=False,
            waiting=lambda pid: progress(Waiting(what, pid)),
            timeout=PREPARE_SECONDS,
        )
        if tree.is_dir():
            os.utime(tree.parent)
            return Worktree(path=tree, ident=ident, lock=shared)
        shared.close()
        exclusive = try_lock(lock_file, exclusive=True)
        if exclusive is None:
            time.sleep(POLL_SECONDS)
            continue
        with exclusive:
            if not tree.is_dir():
                make()


def _publish(work: Path, content: Manifest, ident: str, facts: Mapping[str, object]) -> None:
    manifests.store(work / "manifest.json", content)
    (work / "source.json").write_text(json.dumps(facts))
    work.rename(sources_root() / ident)


def _fresh(ident: str) -> Path:
    """An empty folder to work in; what a killed process left in it is gone."""
    work = sources_root() / f".partial-{ident}"
    shutil.rmtree(work, ignore_errors=True)
    (work / "tree").mkdir(parents=True)
    return work


def _copy(source: Source, progress: Progress) -> None:
    """A copy of the user's tree is among the sources; what it shares with the last is linked."""
    if source.kind is not SourceKind.TREE:
        raise FetchError(f"{source.label} was removed from the cache meanwhile: run again")
    content, _ = tree_manifest(source.path)
    if manifests.digest(content) != source.identity:
        raise SourceError(f"{source.path} was changed while the tree was being read: run again")
    ident = source.identity[:24]
    older = _last_copy(source.path)
    with contextlib.ExitStack() as stack:
        older_content: Manifest = {}
        older_tree = None
        if older is not None:
            lock = try_lock(lock_path(f"source-{older}"), exclusive=False)
            if lock is not None:
                stack.enter_context(lock)
                older_tree = sources_root() / older / "tree"
                older_content = manifests.load(older_tree.parent / "manifest.json")
        missing = [n for n, value in content.items() if older_content.get(n) != value]
        size = sum((source.path / name).lstat().st_size for name in missing)
        require_space(sources_root(), size + LINKED_TREE_BYTES, f"a copy of {source.path}")
        progress(Started(Phase.SNAPSHOT, f"{len(missing)} files of {source.path}"))
        work = _fresh(ident)
        try:
            manifests.copy_tree(
                content,
                source.path,
                work / "tree",
                older=older_tree,
                older_manifest=older_content,
            )
            _publish(work, content, ident, {"tree": str(source.path), "version": source.version})
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _last_copy(tree: Path) -> str | None:
    """The newest copy of this tree, else of another, else a package's source: to share files."""
    candidates: list[tuple[bool, bool, float, str]] = []
    for record in sources_root().glob("*/source.json"):
        try:
            facts = json.loads(record.read_text())
            age = record.stat().st_mtime
        except (OSError, ValueError):
            continue
        copied = facts.get("tree")
        candidates.append((copied == str(tree), copied is not None, age, record.parent.name))
    return max(candidates)[-1] if candidates else None


def _patched(base: Worktree, patches: Sequence[Path], ident: str, progress: Progress) -> None:
    """A copy of `base` (hard links) with the patches applied stands among the sources."""
    require_space(sources_root(), LINKED_TREE_BYTES, "a patched copy of the source")
    content = base.manifest()
    work = _fresh(ident)
    try:
        progress(Started(Phase.PATCH, f"{len(patches)} patches"))
        manifests.link_tree(content, base.path, work / "tree")
        for patch in patches:
            apply_patch(work / "tree", patch)
        changed = _changed(base.path, work / "tree", content)
        for name in changed & content.keys():
            del content[name]
        renewed, _ = manifests.scan(work / "tree", sorted(changed), {})
        content.update(renewed)
        for name in renewed:
            manifests.age(work / "tree" / name)
        names = [patch.name for patch in patches]
        _publish(work, content, ident, {"base": base.ident, "patches": names})
    finally:
        shutil.rmtree(work, ignore_errors=True)


def apply_patch(tree: Path, patch: Path) -> None:
    """The patch is applied in `tree` without fuzz; else PatchError names it, file and hunk.

    `tree` may hold hard links: patch(1) writes a new file and renames it, so that the other
    links keep the old content.
    """
    command = ["patch", "-p1", "--fuzz=0", "--forward", "--batch", "--no-backup-if-mismatch"]
    try:
        result = run_captured(
            [*command, "--reject-file=-", f"--input={patch.resolve()}"],
            cwd=tree,
            env=clean_environment(),
            timeout=PATCH_SECONDS,
        )
    except FileNotFoundError:
        raise ToolMissing([("patch", "patch")]) from None
    said = result.stdout + result.stderr
    # patch(1) is content with an empty file, and with prose
    if result.returncode or "patching file" not in said:
        details = [line for line in said.splitlines() if line.strip()][:40]
        raise PatchError(patch, _refusal(patch, said), details=details)


def _refusal(patch: Path, said: str) -> str:
    """One sentence: which hunk of which file patch(1) refused."""
    current = "an unknown file"
    for line in said.splitlines():
        if match := re.match(r"(?:checking|patching) file (.+)", line):
            current = match[1].strip("'")
        elif match := re.match(r"Hunk #(\d+) FAILED at (\d+)", line):
            return f"{patch.name} does not apply: hunk {match[1]} of {current} (line {match[2]})"
        elif match := re.match(r"can't find file to patch at input line (\d+)", line):
            return f"{patch.name} does not apply: line {match[1]} names a file that is not there"
        elif "previously applied" in line:
            return f"{patch.name} does not apply: {current} has it already"
    if "patching file" not in said:
        return f"{patch.name} does not apply: it is not a patch"
    return f"{patch.name} does not apply to {current}"


def _changed(base: Path, tree: Path, content: Manifest) -> set[str]:
    """The files whose inode is not the base's any more, the new and the removed ones."""
    changed = set(manifests.walk(tree)) ^ content.keys()
    for name in content.keys() - changed:
        if (tree / name).lstat().st_ino != (base / name).lstat().st_ino:
            changed.add(name)
    return changed

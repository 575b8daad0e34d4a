# SPDX-License-Identifier: GPL-2.0-only
"""Build folders: kept when a build is interrupted, and as seeds for similar kernels."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from kernel.cache import LOG, OBJECTS, PARTIAL, build_lock_path
from kernel.make.config import parse_config
from kernel.source import manifest as manifests
from kernel.source.manifest import Manifest
from kernel.source.source import lock_path, sources_root
from kernel.source.worktree import Worktree
from kernel.system.lock import try_lock
from kernel.system.process import clean_environment, polite, run_captured

STATE = ".kexec-stages.json"
TEMPORARY = ".tmp"
COPY_SECONDS = 600.0

# Above this share of differing files a seed saves less than it costs; ccache does better.
MAX_DIFFERENT = 0.2

# Made anew whenever anything is linked, and the larger part of a build folder.
_LINKED = (".tmp_vmlinux*", "vmlinux", "vmlinux.unstripped", "vmlinux.o", "System.map")


class State(BaseModel):
    """What is in a build folder, and whether its build has come to its end."""

    model_config = ConfigDict(frozen=True)

    key: str
    done: bool
    boot_id: str
    compiler: str
    make_arguments: list[str]
    requests: str
    seed: str | None
    relation: str


@dataclass(frozen=True)
class Seed:
    """A finished build folder to start from; `changed` are the source files that differ."""

    folder: Path
    state: State
    changed: frozenset[str]
    relation: str


def boot_id() -> str:
    """The identity of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def read_state(folder: Path) -> State | None:
    """The state of a build folder; None where nothing can be said about it."""
    try:
        return State.model_validate_json((folder / STATE).read_text())
    except (OSError, ValidationError):
        return None


def write_state(folder: Path, state: State) -> None:
    """The state stands in the folder, whole or not at all."""
    temporary = folder / f"{STATE}.new"
    temporary.write_text(state.model_dump_json())
    temporary.replace(folder / STATE)


def folder_of(worktree: Worktree, key: str) -> Path:
    """The build folder of `key` in its worktree."""
    return worktree.path / f"{OBJECTS}{key}"


def open_folder(worktree: Worktree, state: State, fresh: bool) -> tuple[Path, State]:
    """(the build folder, its state); an interrupted build continues in its own folder.

    The caller holds the key's build lock. Otherwise the folder is a copy of the finished
    build that differs least, or empty (always so when `fresh`).
    """
    folder = folder_of(worktree, state.key)
    old = read_state(folder)
    # across a reboot nobody knows which of the files have reached the disk
    same = old is not None and old.key == state.key and old.boot_id == state.boot_id
    if old is not None and same and not fresh:
        repair(folder)
        # a finished one is taken up, too, when its kernel is gone; it is no seed meanwhile
        old = old.model_copy(update={"done": False})
        write_state(folder, old)
        return folder, old
    shutil.rmtree(folder, ignore_errors=True)
    partial = folder.with_name(f"{folder.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    with contextlib.nullcontext() if fresh else _best_seed(worktree, state) as seed:
        if seed is not None and _copy(seed.folder, partial):
            state = state.model_copy(update={"seed": seed.state.key, "relation": seed.relation})
            _relocate(partial, seed.folder, folder)
            (partial / LOG).unlink(missing_ok=True)
            # make compares times only: what differs from the seed's source must be newer than
            # the seed's objects, and an older content of a file usually is not
            for name in seed.changed:
                manifests.renew(worktree.path / name)
    partial.mkdir(exist_ok=True)
    write_state(partial, state)
    partial.rename(folder)
    return folder, state


def _copy(source: Path, target: Path) -> bool:
    command = polite(["cp", "-a", "--reflink=auto", str(source), str(target)])
    result = run_captured(command, env=clean_environment(), timeout=COPY_SECONDS)
    if result.returncode:
        shutil.rmtree(target, ignore_errors=True)
    return result.returncode == 0


def _relocate(copy: Path, old: Path, new: Path) -> None:
    """The recorded commands of tools/ name `new` and its tree instead of `old` and its tree.

    Those have absolute paths, unlike the kernel's own. Were objtool built anew for them, every
    object that it has processed would be, too.
    """
    names = [(str(old), str(new)), (str(old.parent), str(new.parent))]
    for record in copy.glob("tools/**/.*.cmd"):
        text = record.read_text()
        for before, after in names:
            text = text.replace(before, after)
        record.write_text(text)


@contextlib.contextmanager
def _best_seed(worktree: Worktree, state: State) -> Iterator[Seed | None]:
    """The finished build that is nearest, protected from removal; None when none is near."""
    content = worktree.manifest()
    known: dict[str, Manifest] = {worktree.ident: content}
    with contextlib.ExitStack() as stack:
        best: tuple[int, float, Seed] | None = None
        for folder in sorted(sources_root().glob(f"*/tree/{OBJECTS}*")):
            if folder.name.endswith(PARTIAL):
                continue  # half a copy, with the state of the build that it is a copy of
            found = read_state(folder)
            if found is None or not found.done or not _compatible(found, state):
                continue
            ident = folder.parent.parent.name
            lock = try_lock(build_lock_path(found.key), exclusive=False)
            tree_lock = try_lock(lock_path(f"source-{ident}"), exclusive=False)
            if lock is None or tree_lock is None:
                continue
            stack.enter_context(lock)
            stack.enter_context(tree_lock)
            if ident not in known:
                known[ident] = manifests.load(folder.parent.parent / "manifest.json")
            changed = manifests.difference(known[ident], content)
            if len(changed) > MAX_DIFFERENT * len(content):
                continue
            config = _config_distance(found.requests, state.requests)
            age = (folder / STATE).stat().st_mtime
            distance = (len(changed) + config, -age)
            seed = Seed(folder, found, frozenset(changed), _relation(len(changed), config))
            if best is None or distance < best[:2]:
                best = (*distance, seed)
        yield best[2] if best else None


def _compatible(old: State, new: State) -> bool:
    return old.compiler == new.compiler and old.make_arguments == new.make_arguments


def _config_distance(old: str, new: str) -> int:
    before = {symbol: value for symbol, (value, _) in parse_config(old).items()}
    after = {symbol: value for symbol, (value, _) in parse_config(new).items()}
    return len(before.items() ^ after.items())


def _relation(changed: int, config: int) -> str:
    """How a build differs from its seed, in the words that progress estimates go by."""
    if changed and config:
        return "source+config"
    if changed:
        return "source"
    return "config" if config else "release"


def repair(folder: Path) -> None:
    """No target is left that a killed make may have written half.

    kbuild writes `.X.cmd` after X, so an X that is newer than its `.X.cmd` was being written
    when make was killed; one without it is rebuilt in any case.
    """
    shutil.rmtree(folder / TEMPORARY, ignore_errors=True)
    for parent, _, names in os.walk(folder):
        here = set(names)
        for name in names:
            if not (name.startswith(".") and name.endswith(".cmd")):
                continue
            target = name[1:-4]
            if target not in here:
                continue
            path = Path(parent, target)
            if path.stat().st_mtime_ns > Path(parent, name).stat().st_mtime_ns:
                path.unlink()


def settle(folder: Path, state: State) -> None:
    """The finished folder is a seed: without what linking makes anew, and marked as done."""
    for pattern in _LINKED:
        for path in folder.glob(pattern):
            path.unlink()
    shutil.rmtree(folder / TEMPORARY, ignore_errors=True)
    write_state(folder, state.model_copy(update={"done": True}))


def environment_of_make(chain: Mapping[str, str], key: str, folder: Path) -> dict[str, str]:
    """make's environment: equal content gives equal objects, whoever builds, whenever.

    The host's name in the kernel's banner is the key, so a console shows which entry it ran.
    """
    temporary = folder / TEMPORARY
    temporary.mkdir(exist_ok=True)
    return clean_environment(
        {
            **chain,
            "TMPDIR": str(temporary),
            "KBUILD_BUILD_USER": "kexec-stages",
            "KBUILD_BUILD_HOST": key[:12],
            "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
            "KBUILD_BUILD_VERSION": "1",
        }
    )

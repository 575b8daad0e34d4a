# SPDX-License-Identifier: GPL-2.0-only
"""Where a kernel's source comes from: Debian's package, or the user's own tree.

A tarball is the affair of kernel/source/archive.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from common.paths import CHECKOUT, cache_root
from kernel.errors import DiskFull, FetchError, KernelError, SourceError
from kernel.events import Noted, Phase, Progress, Started, Waiting, quiet
from kernel.source import manifest as manifests
from kernel.source.manifest import Manifest, StatCache
from kernel.system.lock import wait_lock
from kernel.system.process import clean_environment, polite, run_captured
from kernel.system.space import FETCH_BYTES, FULL, disk_errors_told, require_space

PRIVATE_APT = CHECKOUT / "common" / "host" / "private-apt"
DEFAULT_SUITE = "trixie-backports"
FETCH_SECONDS = 3600.0
UNPACK_SECONDS = 1800.0
GIT_SECONDS = 120.0
GIVE = (
    "give the kernel's source with --tree DIR or --source linux-7.3.4.tar.xz, or set"
    " KEXEC_STAGES_SOURCE to either"
)
"""What to do where Debian's package cannot be had."""
_MOST_BYTES = 64 << 20
# What people write, as against what a build in the tree leaves, which .gitignore names, too.
_SOURCE = re.compile(r"(?:\.[chS]|\.dtsi?|\.rs|\.lds\.S|(?:^|/)(?:Kconfig|Makefile|Kbuild)[^/]*)$")
_GENERATED = re.compile(
    r"(?:^|/)(?:generated|config)/|\.mod\.c$|\.(?:tab|lex)\.[ch]$|[-.]asn1\.[ch]$|(?:^|/)\."
)
_MOST_ASKED = 2000
_LIST = ("ls-files", "-z", "--others", "--exclude-standard")
_IGNORED = (*_LIST, "--ignored")


class SourceKind(Enum):
    """How a source was come by."""

    DEBIAN = "debian"
    TREE = "tree"
    ARCHIVE = "archive"


@dataclass(frozen=True)
class Source:
    """A kernel's source as it was when this value was made; nothing ever writes to `path`.

    `identity` is a hex digest of what the source is made of: package, version and tarball, or
    the content of every file of a tree or of a tarball of the user's. `facts` are for reports
    (package, commit, ...).
    """

    path: Path
    identity: str
    label: str
    version: str
    kind: SourceKind
    facts: tuple[tuple[str, str], ...] = ()


def sources_root() -> Path:
    """The folder of unpacked, copied and patched sources."""
    return cache_root() / "sources"


def lock_path(name: str) -> Path:
    """The lock file that goes with `name`."""
    return cache_root() / "locks" / name


def kernel_version(tree: Path) -> str:
    """What `make kernelversion` says, read from the top Makefile; SourceError if it is none."""
    try:
        text = (tree / "Makefile").read_text(errors="replace")
    except OSError as error:
        raise SourceError(
            f"{tree} is not a kernel tree (its Makefile: {error.strerror})"
        ) from error
    values: dict[str, str] = dict(
        re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *=[ \t]*(.*?)\s*$", text, re.M)
    )
    if not values.get("VERSION") or not values.get("PATCHLEVEL"):
        raise SourceError(f"{tree} is not a kernel tree (its Makefile names no VERSION)")
    numbers = [values["VERSION"], values["PATCHLEVEL"], values.get("SUBLEVEL", "")]
    return ".".join(n for n in numbers if n) + values.get("EXTRAVERSION", "")


@disk_errors_told()
def debian_source(
    package: str = "linux-source-7.3",
    *,
    suite: str = DEFAULT_SUITE,
    refresh: bool = False,
    progress: Progress = quiet,
    private_apt: Path = PRIVATE_APT,
) -> Source:
    """Debian's kernel source, unpacked in the cache; fetched only once unless `refresh`.

    apt checks the signatures, in a state of its own (`common/host/private-apt`). Raises FetchError.
    """
    if not re.fullmatch(r"linux-source-[0-9][0-9.]*", package):
        raise SourceError(f"{package} is not the name of a kernel source package")
    if not re.fullmatch(r"[a-z][a-z-]*", suite):
        raise SourceError(f"{suite!r} is not the name of a suite of Debian's")
    lock = wait_lock(
        lock_path(_fetch_name(package, suite)),
        exclusive=True,
        waiting=lambda pid: progress(Waiting(f"the source package {package}", pid)),
        timeout=FETCH_SECONDS + UNPACK_SECONDS,
    )
    with lock:
        if not refresh and (found := _unpacked(package, suite)) is not None:
            return found
        return _fetch(package, suite, progress, private_apt)


def _fetch_name(package: str, suite: str) -> str:
    return f"fetch-{package}" if suite == DEFAULT_SUITE else f"fetch-{package}-{suite}"


def _unpacked(package: str, suite: str) -> Source | None:
    """The newest unpacked source of `package` that came from the suite, if there is one."""
    newest: tuple[float, Source] | None = None
    for record in sources_root().glob("*/source.json"):
        try:
            facts = json.loads(record.read_text())
            age = record.stat().st_mtime
        except (OSError, ValueError):
            continue
        came = (facts.get("package"), facts.get("suite", DEFAULT_SUITE))
        if came == (package, suite) and (newest is None or age > newest[0]):
            newest = (age, _debian(record.parent / "tree", facts))
    return newest[1] if newest else None


def _debian(tree: Path, facts: Mapping[str, str]) -> Source:
    return Source(
        path=tree,
        identity=facts["identity"],
        label=f"Debian {facts['package']} {facts['package_version']}",
        version=facts["version"],
        kind=SourceKind.DEBIAN,
        facts=tuple(sorted(facts.items())),
    )


def _fetch(package: str, suite: str, progress: Progress, private_apt: Path) -> Source:
    if lacking := [tool for tool in ("apt-get", "dpkg-deb") if not shutil.which(tool)]:
        raise FetchError(f"there is no {lacking[0]} here, so {package} cannot be fetched: {GIVE}")
    root = sources_root()
    require_space(root, FETCH_BYTES, f"fetching and unpacking {package}")
    # the name is the lock's, so what a killed process left is ours to remove
    work = root / f".{_fetch_name(package, suite)}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        progress(Started(Phase.FETCH, f"{package} from {suite}"))
        fetched = run_captured(
            [str(private_apt), suite, "download", package],
            cwd=work,
            env=clean_environment(_proxies()),
            timeout=FETCH_SECONDS,
        )
        debs = sorted(work.glob("*.deb"))
        if fetched.returncode or len(debs) != 1:
            said = fetched.stderr or fetched.stdout or "no package came"
            raise _failure(f"apt could not fetch {package} from {suite}", said)
        progress(Started(Phase.UNPACK, debs[0].name))
        facts = _unpack(package, debs[0], work)
        if suite != DEFAULT_SUITE:
            facts["suite"] = suite
        target = root / facts["identity"][:24]
        (work / "source.json").write_text(json.dumps(facts))
        if target.exists():  # another suite has the same package
            (work / "source.json").replace(target / "source.json")
        else:
            work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return _debian(target / "tree", facts)


def _failure(what: str, said: str) -> KernelError:
    """The error for a program that failed, with the last words of what it said."""
    lines = said.strip().splitlines()
    if any(FULL in line for line in lines):
        return DiskFull(f"{what}: the disk is full")
    return FetchError(f"{what}: {lines[-1] if lines else 'no reason given'}", details=lines[-8:])


def _proxies() -> dict[str, str]:
    """The variables of our environment that private-apt gets: proxies, and where the cache is."""
    names = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    wanted = [*names, "KEXEC_STAGES_CACHE", "XDG_CACHE_HOME"]
    return {name: os.environ[name] for name in wanted if name in os.environ}


def _unpack(package: str, deb: Path, work: Path) -> dict[str, str]:
    """The facts of the package whose source is now in WORK/tree with its manifest.

    Keys are those of `Source.facts`.
    """
    env = clean_environment()
    asked = run_captured(
        ["dpkg-deb", "--show", "--showformat=${Package}\t${Version}", str(deb)],
        env=env,
        timeout=60,
    )
    name, _, version = asked.stdout.partition("\t")
    if asked.returncode or name != package:
        raise FetchError(f"{deb.name} is not {package}: {asked.stderr.strip() or name}")
    tarball = work / "source.tar.xz"
    member = f"./usr/src/{package}.tar.xz"
    with tarball.open("wb") as out:
        archive = subprocess.Popen(
            polite(["dpkg-deb", "--fsys-tarfile", str(deb)]), stdout=subprocess.PIPE, env=env
        )
        with archive:
            extract = subprocess.run(
                ["tar", "-xO", member],
                stdin=archive.stdout,
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                env=env,
                check=False,
            )
    if archive.returncode or extract.returncode:
        raise _failure(f"{member} of {deb.name} could not be read", extract.stderr)
    deb.unlink()
    with tarball.open("rb") as file:
        tarball_digest = hashlib.file_digest(file, "sha256").hexdigest()
    tree = work / "tree"
    tree.mkdir()
    unpacked = run_captured(
        polite(["tar", "--strip-components=1", "--no-same-owner", "-xJf", str(tarball)]),
        cwd=tree,
        env=env,
        timeout=UNPACK_SECONDS,
    )
    if unpacked.returncode:
        raise _failure(f"{package} could not be unpacked", unpacked.stderr)
    tarball.unlink()
    content, _ = manifests.scan(tree, manifests.walk(tree), {})
    manifests.store(work / "manifest.json", content)
    identity = hashlib.sha256(f"{package}\n{version}\n{tarball_digest}\n".encode()).hexdigest()
    return {
        "package": package,
        "package_version": version,
        "tarball_sha256": tarball_digest,
        "identity": identity,
        "version": kernel_version(tree),
    }


@disk_errors_told()
def tree_source(tree: Path, *, progress: Progress = quiet) -> Source:
    """The user's kernel tree as it stands now; only read, never written, not even its index.

    In a git tree, and in any other where git is installed, files that the tree's .gitignore
    names (what an in-tree build left) are no part of it. Raises SourceError.
    """
    try:
        path = tree.expanduser().resolve(strict=True)
        next(path.iterdir(), None)
    except OSError as error:
        raise SourceError(f"cannot read the kernel tree {tree}: {error.strerror}") from error
    if not (path / "Kbuild").exists() and (path / "source").is_dir():
        path = (path / "source").resolve()  # a build folder (O=): kbuild's link to the tree
        progress(Noted(f"{tree} is a build folder; the kernels are built of {path}"))
    version = kernel_version(path)
    for needed in ("Kbuild", "scripts/kconfig/merge_config.sh", "arch/x86/Makefile"):
        if not (path / needed).is_file():
            raise SourceError(f"{path} is not a kernel tree (it has no {needed})")
    progress(Started(Phase.SNAPSHOT, f"reading {path}"))
    content, facts = tree_manifest(path)
    if skipped_controls := _left_out(path, content):
        progress(Noted(_told_left_out(path, skipped_controls)))
    described = facts.get("describe", version)
    return Source(
        path=path,
        identity=manifests.digest(content),
        label=f"{path} ({described})",
        version=version,
        kind=SourceKind.TREE,
        facts=tuple(sorted(facts.items())),
    )


def tree_manifest(tree: Path) -> tuple[Manifest, dict[str, str]]:
    """(manifest of the user's tree as it is now, what git says about it: see _git_facts())."""
    cache = cache_root() / "trees" / (hashlib.sha256(bytes(tree)).hexdigest()[:24] + ".json")
    try:
        known: StatCache = json.loads(cache.read_text())
    except (OSError, ValueError):
        known = {}
    content, seen = manifests.scan(tree, _tracked_or_new(tree), known)
    if seen != known:
        cache.parent.mkdir(parents=True, exist_ok=True)
        temporary = cache.with_name(f".{cache.name}-{os.getpid()}")
        temporary.write_text(json.dumps(seen))
        temporary.replace(cache)
    return content, _git_facts(tree)


def _git(tree: Path, *arguments: str, git_dir: Path | None = None) -> str | None:
    """What git prints about the tree, None where it fails; it takes no locks and runs no hooks."""
    where = ["--git-dir", str(git_dir), "--work-tree", str(tree)] if git_dir else []
    # safe.directory: a tree of another user's is only read; fsmonitor would run a program
    safe = ["-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-c", "core.bare=false"]
    try:
        result = run_captured(
            ["git", "--no-optional-locks", *safe, *where, *arguments],
            cwd=tree,
            env=clean_environment({"GIT_OPTIONAL_LOCKS": "0"}),
            timeout=GIT_SECONDS,
            # names of files, which need not be text
            errors="surrogateescape",
        )
    except FileNotFoundError:
        return None
    return result.stdout if result.returncode == 0 else None


def _tracked_or_new(tree: Path) -> list[str]:
    """The files that make up the tree, without what an in-tree build has left."""
    listed = _git(tree, *_LIST, "--cached")
    if not listed and any((tree / built).exists() for built in (".config", "include/config")):
        # not under git, but its .gitignore still knows what is generated
        listed = _git(tree, *_LIST, git_dir=_empty_repository())
        if "Makefile" not in (listed or "").split("\0"):
            raise SourceError(
                f"{tree} was built in and is not a git tree: run `make mrproper` there first"
            )
    names = sorted(set(listed.split("\0")) - {""}) if listed else manifests.walk(tree)
    return [name for name in names if not _too_large(tree / name)]


def _too_large(path: Path) -> bool:
    """Whether it is a disk image or the like: the largest file of Linux has 25 MB."""
    try:
        return path.lstat().st_size > _MOST_BYTES
    except OSError:
        return False


def _left_out(tree: Path, content: Manifest) -> list[str]:
    """Sources and large files of the tree that are no part of the copy that is built."""
    ignored = (_git(tree, *_IGNORED) or "").split("\0")
    new = [n for n in ignored if _SOURCE.search(n) and not _GENERATED.search(n)][:_MOST_ASKED]
    why = _git(tree, "check-ignore", "-v", "--", *new) if new else None
    # FILE:LINE:PATTERN, tab, name. What a folder's own .gitignore names the build makes there.
    rules = (line.partition("\t") for line in (why or "").splitlines())
    hidden = [name for rule, _, name in rules if "/.gitignore" not in rule.partition(":")[0]]
    there = (_git(tree, *_LIST, "--cached") or "").split("\0")
    large = [name for name in there if name and name not in content and _too_large(tree / name)]
    return [*hidden, *large]


def _told_left_out(tree: Path, names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (
        f"left out of what is built of {tree}: {', '.join(names[:5])}{more} (named by .gitignore or"
        f" your excludes, or larger than {_MOST_BYTES >> 20} MiB); `git add -f` a source to have it"
    )


def _empty_repository() -> Path:
    folder = cache_root() / "trees" / "empty.git"
    if not (folder / "HEAD").exists() and shutil.which("git"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        init = ["git", "-c", "core.bare=false", "init", "-q", "--bare", str(folder)]
        run_captured(init, env=clean_environment(), timeout=60)
    return folder


def _git_facts(tree: Path) -> dict[str, str]:
    """commit: HEAD; describe: git's name for it; dirty: how many files changed. {} without HEAD."""
    head = _git(tree, "rev-parse", "--verify", "HEAD")
    if head is None:
        return {}
    facts = {"commit": head.strip()}
    if described := _git(tree, "describe", "--always", "--abbrev=12"):
        facts["describe"] = described.strip()
    if status := _git(tree, "status", "--porcelain"):
        facts["dirty"] = str(len(status.splitlines()))
        facts["describe"] = f"{facts.get('describe', head[:12])}, {facts['dirty']} files changed"
    return facts

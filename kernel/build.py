# SPDX-License-Identifier: GPL-2.0-only
"""From a KernelSpec to a finished kernel in the cache."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.arch.architecture import Architecture
from common.arch.known import DEFAULT
from kernel import cache
from kernel.cache import FileMeta, Kernel, Meta, build_lock_path, use_lock_path
from kernel.errors import (
    BuildTimeout,
    CacheError,
    ConfigSymbolLost,
    DiskFull,
    KernelBuildError,
    SourceError,
)
from kernel.events import Compiled, Event, Finished, Phase, Progress, Started, Waiting, quiet
from kernel.image import elf
from kernel.make import config, objects
from kernel.make.diagnose import diagnose, from_source, missing_files
from kernel.make.toolchain import Toolchain, require_tools, toolchain
from kernel.source.source import Source, SourceKind
from kernel.source.worktree import prepare
from kernel.system.lock import Lock, wait_lock
from kernel.system.process import run_logged
from kernel.system.space import BUILD_BYTES, disk_errors_told, require_space

BUILD_SECONDS = 4 * 3600.0

# "  CC      mm/memfd_luo.o": what make prints for each file that a compiler makes
_COMPILES = re.compile(r"^  (?:CC|AS|RUSTC)\s+(?:\[M\]\s+)?(\S+)")
_SAFE_PATH = re.compile(r"[\w/.+,@%=~-]+")


@dataclass(frozen=True)
class KernelSpec:
    """Which kernel is wanted: its source, patches in order, config and release suffix.

    `label` says what for (it is no part of the kernel); `localversion` is like "-luo-out".
    `line_tables` has its vmlinux tell file and line of each instruction; the code is the same.
    """

    source: Source
    label: str
    localversion: str
    fragments: tuple[Path, ...]
    patches: tuple[Path, ...] = ()
    line_tables: bool = False
    arch: Architecture = DEFAULT


@disk_errors_told()
def build(
    spec: KernelSpec,
    *,
    progress: Progress | None = None,
    jobs: int | None = None,
    timeout: float = BUILD_SECONDS,
    fresh: bool = False,
) -> Kernel:
    """The kernel, from the cache or built now; it stays there while the returned value lives.

    `fresh` starts from an empty build folder, without the objects of kernels like it. Raises
    the errors of kernel.errors; an interrupted build goes on where it stopped when asked again.
    """
    tell = progress or quiet
    started = time.monotonic()
    request = _Request.of(spec)
    use = _locked(use_lock_path(request.key), tell, request.key, timeout, exclusive=False)
    try:
        found = cache.load(request.key, use, spec.label)
        cached = found is not None
        if found is None:
            found, cached = _obtain(request, use, tell, jobs or _cpus(), timeout, fresh)
    except BaseException:
        # not left to the traceback, which may live long
        use.close()
        raise
    files = 0 if cached else found.meta.compiled_files
    tell(Finished(request.key, found.release, cached, time.monotonic() - started, files))
    return found


def _obtain(
    request: _Request, use: Lock, tell: Progress, jobs: int, timeout: float, fresh: bool
) -> tuple[Kernel, bool]:
    """(the kernel, whether another process has built it in the meantime)."""
    key, label = request.key, request.spec.label
    with _locked(build_lock_path(key), tell, key, timeout, exclusive=True) as lock:
        if (found := cache.load(key, use, label)) is not None:
            return found, True
        _Build(request, lock, tell, jobs, timeout, fresh).run()
        if (found := cache.load(key, use, label)) is None:
            raise CacheError(f"kernel {key[:12]} was built but cannot be read back")
        return found, False


def _cpus() -> int:
    return len(os.sched_getaffinity(0))


def _locked(path: Path, tell: Progress, key: str, timeout: float, *, exclusive: bool) -> Lock:
    what = f"kernel {key[:12]}"
    try:
        return wait_lock(
            path,
            exclusive=exclusive,
            waiting=lambda pid: tell(Waiting(what, pid)),
            timeout=timeout,
        )
    except TimeoutError as error:
        raise BuildTimeout(f"{what} is still being built by another process") from error


@dataclass(frozen=True)
class _Request:
    """A spec with all that its key is made of."""

    spec: KernelSpec
    key: str
    wanted: dict[str, config.Request]
    patches: list[tuple[str, str]]
    chain: Toolchain

    @staticmethod
    def of(spec: KernelSpec) -> _Request:
        if not re.fullmatch(r"[A-Za-z0-9.+_-]{0,40}", spec.localversion):
            raise SourceError(f"{spec.localversion!r} cannot be part of a kernel release")
        chain = toolchain(spec.arch)
        wanted = config.requests(spec.fragments)
        patches: list[tuple[str, str]] = []
        for patch in spec.patches:
            try:
                patches.append((patch.name, cache.file_sha256(patch)))
            except OSError as error:
                raise SourceError(f"cannot read the patch {patch}: {error.strerror}") from error
        key = kernel_key(
            source_identity=spec.source.identity,
            patches=[digest for _, digest in patches],
            requests=config.merged(wanted.values()),
            compiler=chain.identity,
            flags=[*_flags(chain), *_lines(spec)],
            localversion=spec.localversion,
        )
        return _Request(spec, key, wanted, patches, chain)


def _lines(spec: KernelSpec) -> list[str]:
    """On make's command line: line tables without the rest of the debug information."""
    return ["KCFLAGS=-g1"] if spec.line_tables else []


def _flags(chain: Toolchain) -> list[str]:
    return [Path(chain.compiler).name, *([f"LLVM={chain.llvm}"] if chain.llvm else [])]


def kernel_key(
    *,
    source_identity: str,
    patches: Sequence[str],
    requests: str,
    compiler: str,
    flags: Sequence[str],
    localversion: str,
) -> str:
    """The name of a kernel in the cache: a digest of all that its bits depend on.

    The final .config is a function of these, so a cached kernel is found without configuring.
    """
    parts = {
        "format": cache.FORMAT,
        "source": source_identity,
        "patches": list(patches),
        "requests": requests,
        "compiler": compiler,
        "flags": list(flags),
        "localversion": localversion,
    }
    whole = json.dumps(parts, sort_keys=True).encode()
    return hashlib.sha256(whole).hexdigest()[: cache.KEY_DIGITS]


@dataclass
class _Build:
    """One build in progress; `lock` is its key's build lock."""

    request: _Request
    lock: Lock
    tell: Progress
    jobs: int
    timeout: float
    fresh: bool
    phases: dict[str, float] = field(default_factory=dict)
    files: int = 0
    before: int = 0

    def run(self) -> Meta:
        """The record of the kernel, which is in the cache now."""
        spec, key = self.request.spec, self.request.key
        self.deadline = time.monotonic() + self.timeout
        self.clock = time.monotonic()
        require_tools(self.request.chain)
        root = cache.kernels_root()
        if not _SAFE_PATH.fullmatch(str(root)):
            raise SourceError(f"make cannot build below {root.parent}: set KEXEC_STAGES_CACHE")
        require_space(root, BUILD_BYTES, "building a kernel")
        config.require_essential(self.request.wanted, spec.source.path, spec.source.label)
        worktree = prepare(spec.source, spec.patches, self._event)
        self.worktree = worktree
        with worktree.lock:
            if config.stored(self._stored_config()) is None:
                label = spec.source.label
                config.require_defined(self.request.wanted, worktree.path, label)
            self._event(Started(Phase.SEED, f"build folder of {key[:12]}"))
            self.folder, state = objects.open_folder(worktree, self._state(), self.fresh)
            self.before = compiled_files(self.folder / cache.LOG)
            text = self._configure()
            self._compile(state)
            return self._publish(state, text)

    def _event(self, event: Event) -> None:
        if isinstance(event, Started):
            self._lap(event.phase)
        self.tell(event)

    def _lap(self, phase: Phase | None) -> None:
        """The time since the last phase began is booked on it."""
        now = time.monotonic()
        last = next(reversed(self.phases), None)
        if last is not None:
            self.phases[last] = round(self.phases[last] + now - self.clock, 1)
        self.clock = now
        if phase is not None:
            self.phases[phase.value] = self.phases.pop(phase.value, 0.0)

    def _state(self) -> objects.State:
        return objects.State(
            key=self.request.key,
            done=False,
            boot_id=objects.boot_id(),
            compiler=self.request.chain.identity,
            make_arguments=self._make_arguments(),
            requests=config.merged(self.request.wanted.values()),
            seed=None,
            relation="none",
        )

    def _make_arguments(self) -> list[str]:
        return [*self.request.chain.make_arguments(), *_lines(self.request.spec)]

    def _make(self, goals: Sequence[str], line: Callable[[str], None] | None = None) -> None:
        """The goals are made; else KernelBuildError with what was said first."""
        chain, key = self.request.chain, self.request.key
        env = objects.environment_of_make(chain.environment(), key, self.folder)
        command = ["make", "-C", str(self.worktree.path), f"O={self.folder.name}"]
        command += [f"-j{self.jobs}", "--output-sync=target", "--no-print-directory"]
        command += [*self._make_arguments(), f"LOCALVERSION={self.request.spec.localversion}"]
        command += goals
        self._run(command, env, line)

    def _run(
        self, command: Sequence[str], env: dict[str, str], line: Callable[[str], None] | None
    ) -> None:
        log = self.folder / cache.LOG
        output: list[str] = []

        def keep(text: str) -> None:
            output.append(text)
            if line is not None:
                line(text)

        try:
            status = run_logged(
                command,
                log=log,
                env=env,
                timeout=self.deadline - time.monotonic(),
                cwd=self.worktree.path,
                line=keep,
                locks=(self.lock, self.worktree.lock),
            )
        except TimeoutError as error:
            raise BuildTimeout(f"{error}: building {self.request.spec.label}, log {log}") from error
        if status == 0:
            return
        failure = diagnose(output)
        if failure.disk_full:
            raise DiskFull(
                f"the disk is full while building {self.request.spec.label} in {self.folder}",
                details=failure.lines,
            )
        if lost := self._not_copied(output):
            raise SourceError(
                f"{self.request.spec.label} does not build without {lost}, which is in"
                f" {self.request.spec.source.path} but in no copy of it: .gitignore or your"
                " excludes name it, or it is too large; `git add -f` it"
            )
        told = {name: env[name] for name in env if name not in ("HOME", "TMPDIR")}
        repeat = ["env", "-i", *(f"{name}={value}" for name, value in told.items()), *command]
        raise KernelBuildError(
            f"{self.request.spec.label} did not build: {failure.summary}",
            details=failure.lines,
            log=log,
            command=repeat,
        )

    def _not_copied(self, output: Sequence[str]) -> str | None:
        """A file that the build asked for in vain, and that the user's own tree has."""
        source = self.request.spec.source
        for name in missing_files(output) if source.kind is SourceKind.TREE else ():
            if (source.path / name).is_file() and not (self.worktree.path / name).exists():
                return name
        return None

    def _configure(self) -> str:
        """The text of the final .config, which grants all requests and stands in the folder."""
        self._event(Started(Phase.CONFIGURE, f"{len(self.request.wanted)} symbols"))
        stored = self._stored_config()
        text = config.stored(stored) or self._make_config()
        spec, dot_config = self.request.spec, self.folder / ".config"
        try:
            config.require_granted(self.request.wanted, text, self.worktree.path, spec.source.label)
        except ConfigSymbolLost:
            # nobody will go on in this folder
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        config.store(stored, text)
        # a .config that only became younger would have kbuild go through all of it again
        if not dot_config.exists() or dot_config.read_text() != text:
            dot_config.write_text(text)
        return text

    def _stored_config(self) -> Path:
        """Where the .config is kept that comes of these requests, this compiler, these Kconfigs."""
        parts = [
            str(cache.FORMAT),
            config.relevant(self.worktree.manifest(), self.request.spec.arch.makefile),
            config.merged(self.request.wanted.values()),
            self.request.chain.identity,
            *_flags(self.request.chain),
        ]
        return config.stored_path(hashlib.sha256("\0".join(parts).encode()).hexdigest())

    def _make_config(self) -> str:
        fragment = self.folder / ".requests.config"
        # the release is the spec's, not git's; a fragment may say otherwise and will be told so
        fragment.write_text(
            "# CONFIG_LOCALVERSION_AUTO is not set\n" + config.merged(self.request.wanted.values())
        )
        self._make(["tinyconfig"])
        script = self.worktree.path / "scripts" / "kconfig" / "merge_config.sh"
        dot_config = self.folder / ".config"
        env = objects.environment_of_make({}, self.request.key, self.folder)
        merge = ["sh", str(script), "-m", "-O", str(self.folder), str(dot_config), str(fragment)]
        self._run(merge, env, None)
        self._make(["olddefconfig"])
        return dot_config.read_text()

    def _compile(self, state: objects.State) -> None:
        expected = self._expected(state)
        self._event(Started(Phase.COMPILE, self.request.spec.label))
        began = time.monotonic()

        def line(text: str) -> None:
            if not (match := _COMPILES.match(text)):
                return
            self.files += 1
            elapsed = time.monotonic() - began
            eta = None
            if expected is not None:
                eta = max(0.0, elapsed / self.files * (expected - self.files))
            self.tell(Compiled(self.files, expected, elapsed, eta, from_source(match[1])))

        self._make((self.request.spec.arch.image_goal, "headers"), line)
        if not (self.folder / "usr" / "gen_init_cpio").exists():
            self._make(["usr/gen_init_cpio"])

    def _expected(self, state: objects.State) -> int | None:
        """How many files are still to be compiled, going by the last build of its kind.

        None where that says nothing: one header or symbol may be one file or all of them.
        """
        if state.relation not in ("none", "release"):
            return None
        alike: list[tuple[datetime.datetime, int]] = []
        for folder in cache.kernels_root().glob("[0-9a-f]*"):
            meta = cache.read_meta(folder)
            if meta is not None and meta.seed_relation == state.relation:
                alike.append((meta.created, meta.compiled_files))
        return max(0, max(alike)[1] - self.before) if alike else None

    def _release(self) -> str:
        """The release that make has given the kernel, which must be the one asked for."""
        release = (self.folder / "include" / "config" / "kernel.release").read_text().strip()
        spec = self.request.spec
        files = sorted(p for p in self.worktree.path.glob("localversion*") if "~" not in p.name)
        local = "".join("".join(file.read_text().split()) for file in files)
        wanted = f"{spec.source.version}{local}{spec.localversion}"
        if release != wanted:
            raise KernelBuildError(f"the kernel calls itself {release} instead of {wanted}")
        return release

    def _publish(self, state: objects.State, text: str) -> Meta:
        """The record of the kernel; its files are copied into the cache."""
        self._event(Started(Phase.PUBLISH, self.request.key[:12]))
        spec, key, folder = self.request.spec, self.request.key, self.folder
        release = self._release()
        build_id = elf.build_id(folder / "vmlinux")
        if build_id is None:
            raise KernelBuildError("the vmlinux that was built has no GNU build id")
        work = cache.kernels_root() / f".partial-{key}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            made = {
                spec.arch.image_goal: folder / spec.arch.image_path,
                cache.VMLINUX: folder / "vmlinux",
                cache.SYSTEM_MAP: folder / "System.map",
                cache.CONFIG: folder / ".config",
                cache.GEN_INIT_CPIO: folder / "usr" / "gen_init_cpio",
                cache.LOG: folder / cache.LOG,
            }
            files: dict[str, FileMeta] = {}
            for name, path in made.items():
                shutil.copy2(path, work / name)
                digest = cache.file_sha256(work / name)
                files[name] = FileMeta(size=path.stat().st_size, sha256=digest)
            copy_headers(folder / "usr" / "include", work / cache.HEADERS / "include")
            self._lap(None)
            meta = Meta(
                format=cache.FORMAT,
                arch=spec.arch.name,
                key=key,
                label=spec.label,
                localversion=spec.localversion,
                source=spec.source.label,
                source_identity=spec.source.identity,
                source_version=spec.source.version,
                source_facts=dict(spec.source.facts),
                worktree=self.worktree.ident,
                patches=self.request.patches,
                fragments=[str(fragment) for fragment in spec.fragments],
                requests=config.merged(self.request.wanted.values()),
                compiler=self.request.chain.identity,
                flags=[*_flags(self.request.chain), *_lines(spec)],
                config_sha256=hashlib.sha256(text.encode()).hexdigest(),
                release=release,
                build_id=build_id,
                created=datetime.datetime.now(datetime.UTC),
                seconds=self.phases,
                compiled_files=self.before + self.files,
                seed=state.seed,
                seed_relation=state.relation,
                files=files,
                header_bytes=cache.content_size(work / cache.HEADERS),
            )
            cache.publish(work, meta)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        objects.settle(folder, state)
        cache.trim()
        return meta


def compiled_files(log: Path) -> int:
    """How many files an interrupted build has compiled, by its log; 0 where there is none."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return 0
    return sum(1 for line in text.splitlines() if _COMPILES.match(line))


def copy_headers(source: Path, target: Path) -> None:
    """`target` has the .h files below `source`, as `make headers_install` would (but no rsync)."""
    for folder, _, names in os.walk(source):
        for name in names:
            if name.endswith(".h"):
                place = target / os.path.relpath(folder, source)
                place.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(Path(folder, name), place / name)

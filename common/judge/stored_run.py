# SPDX-License-Identifier: GPL-2.0-only
"""A run on disk or in a bundle: found, compared with its seal, and read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError
from pydantic_core import from_json

from common.errors import UsageError, first_of
from common.judge import bundle
from common.judge.known_splats import Judged, KnownSplat, judge_with
from common.judge.verdict import Verdict
from common.judge.verify import differences, run_from_raw
from common.paths import runs_root
from common.record.evidence import Run
from common.record.seal import seal_breaches, seal_entries, sha256
from common.record.setting import SCHEMA
from common.record.sources import other_code
from common.record.stored_file import first_fault, read_bytes
from common.record.trial_files import MADE, RECORD, RUN_FILES, SUMS, check_tree
from common.stage.declaration import Stage
from common.stage.loading import trial_files

_TOLD = 20


@dataclass(frozen=True)
class StoredRun:
    """A sealed run with everything a report says of it. `folder` lives as long as `opened`.

    `run` and `stage` follow from the raw files.
    """

    folder: Path
    run: Run
    stage: Stage
    known: tuple[KnownSplat, ...] = ()
    """The user's list of splats that are not to fail it."""

    @property
    def name(self) -> str:
        """The run's id: what its folder is called."""
        return self.folder.name

    @cached_property
    def judged(self) -> Judged:
        """The verdict with what there is to say of the list."""
        return judge_with(self.run, self.stage, self.known)

    @property
    def verdict(self) -> Verdict:
        """The verdict of this checkout's checks, whatever code made the run."""
        return self.judged.verdict

    @cached_property
    def vouched(self) -> Verdict:
        """The same, unless the run was made by other code than this checkout's: that is said."""
        other = other_code(self.run.sources)
        if not other:
            return self.verdict
        why = (
            f"made by commit {self.run.commit}, not with this checkout's {', '.join(other)};"
            f" its raw files give {self.verdict.status}: {self.verdict.why}"
        )
        return self.verdict.model_copy(update={"status": "OTHER CODE", "why": why})

    @cached_property
    def sums(self) -> Mapping[str, str]:
        """File name below the folder -> SHA-256, 64 hex digits."""
        return seal_entries(self.folder)

    @cached_property
    def seal(self) -> str:
        """SHA-256 of SHA256SUMS: one number that stands for every byte of the run."""
        return sha256(self.folder / SUMS)


def find_run(name: str) -> Path:
    """The folder of a run: a path, a name below the runs folder, or `latest`."""
    for folder in (Path(name), runs_root() / name):
        if folder.is_dir():
            if not (folder / RECORD).exists():
                raise UsageError(
                    f"{folder} is not a finished run: it has no {RECORD} (was the harness killed?)"
                )
            return folder.resolve()
    raise UsageError(f"there is no run {name!r}, neither as a folder nor in {runs_root()}")


@contextmanager
def opened(name: str, known: tuple[KnownSplat, ...] = ()) -> Iterator[StoredRun]:
    """The run of that name, or of the bundle in that file, to be judged with that list.

    Raises UsageError when there is none, when it is half a run, or when anything was edited.
    """
    with ExitStack() as stack:
        if Path(name).is_file():
            target = Path(stack.enter_context(TemporaryDirectory(prefix="kexec-stages-")))
            folder = bundle.unpack(Path(name), target)
        else:
            folder = find_run(name)
        yield replace(_read(folder), known=known)


def _read(folder: Path) -> StoredRun:
    check_tree(folder, trial_files())
    check_seal(folder)
    _check_format(folder)
    run, stage = run_from_raw(folder)
    _check_record(folder, run)
    return StoredRun(folder, run, stage)


def check_seal(folder: Path) -> None:
    """Raises UsageError naming the first file that is not as it was sealed."""
    if breaches := seal_breaches(folder):
        raise UsageError(f"{folder.name} is not as it was sealed: {first_of(breaches)}")


def _check_record(folder: Path, run: Run) -> None:
    """Raises UsageError where record.json is not what follows from the raw files."""
    text = read_bytes(folder / RECORD, RUN_FILES[RECORD])
    if text == run.text().encode():
        return
    try:
        stored = Run.model_validate_json(text)
    except ValidationError as error:
        raise UsageError(f"{folder.name}: {RECORD} is damaged: {first_fault(error)}") from None
    found = [*islice(_disagreements(stored, run), _TOLD)]
    found = found or [f"{RECORD} is not as this program writes it"]
    raise UsageError(f"{folder.name}: {first_of(found)}")


def _disagreements(stored: Run, run: Run) -> Iterator[str]:
    """What record.json says and the raw files do not; a clause each."""
    said, follows = ({t.setting.name: t for t in one.trials} for one in (stored, run))
    for name in [*said, *(name for name in follows if name not in said)]:
        if name not in follows:
            yield f"{RECORD} has a trial {name} that left no raw files"
        elif name not in said:
            yield f"{RECORD} leaves out trial {name}"
        else:
            for where, one, other in differences(said[name], follows[name]):
                yield (
                    f"{RECORD} says of trial {name} what its raw files do not: {where} is {one}, by"
                    f" the raw files {other}"
                )
    bare = [one.model_copy(update={"trials": ()}) for one in (stored, run)]
    for where, one, other in differences(*bare):
        yield f"{RECORD} says that {where} is {one}, {MADE} {other}"


def _check_format(folder: Path) -> None:
    """Raises UsageError for a record that another version of this program made, or that is none."""
    try:
        stored = from_json(read_bytes(folder / RECORD, RUN_FILES[RECORD]))
    except FileNotFoundError:
        raise UsageError(f"{folder.name} is not a finished run: it has no {RECORD}") from None
    except ValueError as error:
        raise UsageError(f"{folder.name}: {RECORD} is damaged: {error}") from None
    version = stored.get("schema_version", 1) if isinstance(stored, dict) else None
    if isinstance(version, int) and version != SCHEMA:
        raise UsageError(
            f"{folder.name} was recorded by {stored.get('tool')}, commit {stored.get('commit')},"
            f" whose records have format {version}; this program reads {SCHEMA}: judge it with that"
            " one"
        )

# SPDX-License-Identifier: GPL-2.0-only
"""A run as it lies on disk or in a bundle: found, seen to be as it was sealed, and read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from common import bundle
from common.as_run import as_recorded
from common.errors import UsageError
from common.paths import runs_root
from common.record import SCHEMA, SUMS, Run, seal_breaches, seal_entries, sha256
from common.stage import Stage, load_stage
from common.verdict import Verdict, judge

RECORD = "record.json"


@dataclass(frozen=True)
class StoredRun:
    """A sealed run with everything a report says of it. `folder` lives as long as `opened`."""

    folder: Path
    run: Run

    @property
    def name(self) -> str:
        """The run's id: what its folder is called."""
        return self.folder.name

    @cached_property
    def stage(self) -> Stage:
        """The declaration of its stage. Raises UsageError when this checkout has none."""
        settings = [trial.setting for trial in self.run.trials]
        if not settings:
            return load_stage(self.run.stage)
        # of a chain only the main runs and its own controls say that it is one
        longest = max(settings, key=lambda setting: setting.chain)
        return as_recorded(load_stage(self.run.stage, longest.workload), longest)

    @cached_property
    def verdict(self) -> Verdict:
        """The verdict on its record."""
        return judge(self.run, self.stage)

    @cached_property
    def sums(self) -> Mapping[str, str]:
        """SHA-256 of each file, by its name below the folder."""
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
                    f"{folder} is no finished run: it has no {RECORD} (was the harness killed?)"
                )
            return folder.resolve()
    raise UsageError(f"there is no run {name!r}, neither as a folder nor in {runs_root()}")


@contextmanager
def opened(name: str) -> Iterator[StoredRun]:
    """The run of that name, or of the bundle in that file.

    Raises UsageError when there is none, when it is half a run, or when anything was edited.
    """
    with ExitStack() as stack:
        if Path(name).is_file():
            target = Path(stack.enter_context(TemporaryDirectory(prefix="kexec-stages-")))
            folder = bundle.unpack(Path(name), target)
        else:
            folder = find_run(name)
        check_seal(folder)
        yield StoredRun(folder, read_record(folder))


def check_seal(folder: Path) -> None:
    """Raises UsageError naming the first file that is not as it was sealed."""
    if breaches := seal_breaches(folder):
        more = f" (and {len(breaches) - 1} more)" if len(breaches) > 1 else ""
        raise UsageError(f"{folder.name} is not as it was sealed: {breaches[0]}{more}")


def read_record(folder: Path) -> Run:
    """The stored record of a run. Raises UsageError when it is damaged, or of another format."""
    try:
        text = (folder / RECORD).read_bytes()
        _check_format(folder.name, text)
        return Run.model_validate_json(text)
    except FileNotFoundError:
        raise UsageError(f"{folder.name} is no finished run: it has no {RECORD}") from None
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise UsageError(f"{folder}/{RECORD} is damaged: {first}") from None


def _check_format(name: str, text: bytes) -> None:
    """Raises UsageError for a record that another version of this program made."""
    stored = json.loads(text)
    version = stored.get("schema_version", 1) if isinstance(stored, dict) else None
    if isinstance(version, int) and version != SCHEMA:
        raise UsageError(
            f"{name} was recorded by {stored.get('tool')}, commit {stored.get('commit')}, whose"
            f" records have format {version}; this program reads {SCHEMA}: judge it with that one"
        )

# SPDX-License-Identifier: GPL-2.0-only
"""Which files a run's folder and each of its trials have, and how large they may be: one table.

A file that is not in it belongs to no run, and is refused; one that no trial of that stage leaves,
likewise. Who reads a file has its model.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from common.errors import UsageError
from common.record.stored_file import MOST_BYTES


@dataclass(frozen=True)
class TrialFile:
    """A file of a trial."""

    name: str
    needed: bool = True
    """Each trial leaves it, however it ends."""
    most: int = MOST_BYTES
    """Bytes."""


OF_EVERY_TRIAL = (
    TrialFile("trial.json"),  # evidence.py: Setting
    TrialFile("domain.xml"),
    TrialFile("console.jsonl"),  # stored_file.py: read_stamped
    TrialFile("console.log"),
    TrialFile("dialogue.jsonl", most=16 << 20),
    TrialFile("dialogue.log", most=16 << 20),
    TrialFile("qmp.jsonl"),  # evidence.py: QmpEvent
    TrialFile("qemu-trace.log"),  # qemu/trace.py
    TrialFile("host.jsonl"),  # host/log.py: Sample
    TrialFile("away-host.jsonl"),  # host/away.py
    TrialFile("away-qemu.jsonl"),
    TrialFile("away-harness.jsonl"),
    TrialFile("jit.jsonl", needed=False),  # qemu/jit.py: Entry
    TrialFile("qemu.log", needed=False),  # qemu/fault.py
    TrialFile("qemu-state.txt", needed=False),
    TrialFile("cpu-samples.jsonl"),  # cpus/samples.py: Sample
    TrialFile("last-look.json", needed=False),  # cpus/last_look.py: LastLook
    TrialFile("log-from-ram.txt", needed=False),  # the same log, for people
)
"""What a stage's trials leave beside these it declares itself."""
RECORD, MADE, SUMS = "record.json", "run.json", "SHA256SUMS"
RUN_FILES = {
    RECORD: 64 << 20,
    MADE: 1 << 20,
    SUMS: 8 << 20,
    "outgoing.config": 4 << 20,
    "incoming.config": 4 << 20,
}
"""What lies beside the trials -> bytes at most."""
MOST_FILES = 20_000
MOST_TOTAL = 1 << 30
_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", re.ASCII)


def check_tree(folder: Path, files: Iterable[TrialFile]) -> None:
    """That a run's folder holds a run's files and folders of trials, and nothing else.

    `files` are those that some stage's trials leave. Looks at names, kinds and sizes, and opens
    nothing. Raises UsageError.
    """
    largest = {file.name: file.most for file in (*OF_EVERY_TRIAL, *files)}
    count = total = 0
    for name, found in _below(folder):
        inside, _, file = name.rpartition("/")
        most = largest.get(file) if inside else RUN_FILES.get(file)
        if most is None or (inside and not _FOLDER.fullmatch(inside)):
            raise UsageError(f"{folder.name} holds {name!r}, which is not a file of a run")
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(
                f"{folder.name}: {name} is not a regular file: no run holds such a thing"
            )
        if found.st_size > most:
            raise UsageError(
                f"{folder.name}: {name} has {found.st_size >> 20} MiB, and a run leaves"
                f" {most >> 20} at most"
            )
        count, total = count + 1, total + found.st_size
        if count > MOST_FILES or total > MOST_TOTAL:
            raise UsageError(
                f"{folder.name} has more than {MOST_FILES} files, or than {MOST_TOTAL >> 20} MiB"
            )


def _below(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Path below the folder and lstat() of each file, in the folder and in its folders.

    Raises UsageError for an empty folder; those in it hold files only.
    """
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not entry.is_dir(follow_symlinks=False):
                yield entry.name, entry.stat(follow_symlinks=False)
                continue
            with os.scandir(entry) as files:
                names = sorted(file.name for file in files)
            for name in names or ["nothing"]:
                path = f"{entry.name}/{name}"
                if not names:
                    raise UsageError(f"{folder.name} holds the folder {entry.name!r}, with nothing")
                yield path, (folder / path).lstat()


def check_trial(folder: Path, label: str, files: Iterable[TrialFile]) -> None:
    """That a trial's folder has the files that a trial of that stage has. Raises UsageError."""
    present = {path.name for path in folder.iterdir()}
    own = {file.name: file for file in (*OF_EVERY_TRIAL, *files)}
    for name in sorted(present - own.keys()):
        raise UsageError(f"{folder}: no trial of stage {label} leaves a {name}")
    for file in own.values():
        if file.needed and file.name not in present:
            raise UsageError(
                f"{folder}: half a trial, {file.name} is missing (was the harness killed?);"
                " run it again"
            )

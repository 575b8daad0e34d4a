# SPDX-License-Identifier: GPL-2.0-only
"""Which files a run's folder and each of its trials have, and how large they may be: one table.

A file that is not in it belongs to no run, and is refused; one that no trial of that stage leaves,
likewise. Who reads a file has its model.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.errors import UsageError
from common.record.stored_file import MOST_BYTES

VMM, QEMU, NOIOMMU, IOMMUFD, NIC = (
    "01_kvm_memfd",
    "01_kvm_memfd_qemu",
    "02_vfio_noiommu",
    "03_iommufd",
    "03_iommufd_qemu",
)
FRAMES = frozenset({NOIOMMU, IOMMUFD, NIC})
EVERY = frozenset({VMM, QEMU}) | FRAMES


@dataclass(frozen=True)
class TrialFile:
    """A file of a trial; `of` are the labels of the stages whose trials may have it."""

    name: str
    of: frozenset[str] = EVERY
    needed: bool = True
    """Every trial of these stages leaves it, however it ends."""
    most: int = MOST_BYTES
    """Bytes."""


_FRAME_LOG = 24 << 20  # a million landings
TRIAL_FILES = (
    TrialFile("trial.json"),  # record.py: Setting
    TrialFile("domain.xml"),
    TrialFile("console.jsonl"),  # stored_file.py: read_stamped
    TrialFile("console.log"),
    TrialFile("dialogue.jsonl", most=16 << 20),
    TrialFile("dialogue.log", most=16 << 20),
    TrialFile("qmp.jsonl"),  # record.py: QmpEvent
    TrialFile("qemu-trace.log"),  # qemu_trace.py
    TrialFile("host.jsonl"),  # host_log.py: Sample
    TrialFile("away-host.jsonl"),  # away.py
    TrialFile("away-qemu.jsonl"),
    TrialFile("away-harness.jsonl"),
    TrialFile("jit.jsonl", needed=False),  # jit.py: Entry
    TrialFile("qemu.log", needed=False),  # qemu_fault.py
    TrialFile("qemu-state.txt", needed=False),
    TrialFile("cpu-samples.jsonl"),  # cpu_samples.py: Sample
    TrialFile("last-look.json", needed=False),  # last_look.py: LastLook
    TrialFile("log-from-ram.txt", needed=False),  # the same log, for people
    TrialFile("ram-witness.json", of=frozenset({VMM, QEMU})),  # kvm_memfd_witness.py: RamWitness
    TrialFile("files-witness.json", of=frozenset({VMM})),  # kvm_memfd_files_witness.py: Seen
    TrialFile("guest.jsonl", of=frozenset({QEMU, NIC})),
    TrialFile("guest.log", of=frozenset({QEMU, NIC})),
    TrialFile("guest-qmp.jsonl", of=frozenset({QEMU, NIC})),  # guest_lines.py: Entry
    # Of a trial that came to its traffic.
    *(
        TrialFile(name, of=FRAMES, needed=False, most=_FRAME_LOG)
        for name in ("device-sent.bin", "device-landed.bin", "other-sent.bin", "other-landed.bin")
    ),
    TrialFile("device-returned.bin", of=frozenset({NIC}), needed=False, most=_FRAME_LOG),
    TrialFile("socket.json", of=FRAMES, needed=False),  # frame_witness.py: Socket
    TrialFile("away-sender.jsonl", of=FRAMES, needed=False),
    TrialFile("away-watcher.jsonl", of=FRAMES, needed=False),
    TrialFile(
        "tables.json", of=frozenset({IOMMUFD, NIC}), needed=False
    ),  # iommufd_witness.py: Look
    *(
        TrialFile(f"again-{name}", of=frozenset({IOMMUFD}), needed=False, most=_FRAME_LOG)
        for name in ("device-sent.bin", "other-sent.bin")
    ),
    TrialFile("away-again-sender.jsonl", of=frozenset({IOMMUFD}), needed=False),
)
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
_LARGEST = {file.name: file.most for file in TRIAL_FILES}


def check_tree(folder: Path) -> None:
    """That a run's folder holds a run's files and folders of them, and nothing else.

    Looks at names, kinds and sizes, and opens nothing. Raises UsageError.
    """
    count = total = 0
    for name, found in _below(folder):
        inside, _, file = name.rpartition("/")
        most = _LARGEST.get(file) if inside else RUN_FILES.get(file)
        if most is None or (inside and not _FOLDER.fullmatch(inside)):
            raise UsageError(f"{folder.name} holds {name!r}, which is no file of a run")
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(f"{folder.name}: {name} is no regular file: no run holds such a thing")
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
    """Everything in the folder, and in the folders in it; in those there are files only."""
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


def check_trial(folder: Path, label: str) -> None:
    """That a trial's folder has the files that a trial of that stage has. Raises UsageError."""
    present = {path.name for path in folder.iterdir()}
    own = {file.name: file for file in TRIAL_FILES if label in file.of}
    for name in sorted(present - own.keys()):
        raise UsageError(f"{folder}: no trial of stage {label} leaves a {name}")
    for file in own.values():
        if file.needed and file.name not in present:
            raise UsageError(
                f"{folder}: half a trial, {file.name} is missing (was the harness killed?);"
                " run it again"
            )

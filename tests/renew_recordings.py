# SPDX-License-Identifier: GPL-2.0-only
"""Run the trials that the tests edit copies of, and put their raw files in place of the old ones.

    PYTHONPATH=. python -m tests.renew_recordings [FOLDER…]     all of RECORDINGS, or those named

The byte-for-byte logs, which the stamped lines repeat, are left out, and of the faults of a device
that goes on without anybody's leave each `FAULTS_KEPT`-th stays. The home folder of who recorded
them becomes /home/user.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common.paths import CHECKOUT
from tests.recorded_trial import RECORDED

RECORDINGS = {
    "kvm_memfd": "run 1 --guest-memory 64 --control byte-flipped --control firmware-reboot"
    " --control kho-off --control panic",
    "kvm_memfd/main": "run 1 --guest-memory 64 --no-controls",
    "chain": "run 1 --guest-memory 64 --chain 2 --control guest-asleep --control uncounted-update",
    "chain/main": "run 1 --guest-memory 64 --chain 2 --no-controls",
    "kvm_memfd_qemu": "run 1 --workload qemu --no-controls",
    "vfio_noiommu": "run 2 --guest-memory 32 --rate 100 --ring 1024 --aborts 2 --no-controls",
    "vfio_noiommu/stock": "run 2 --guest-memory 32 --rate 100 --ring 1024 --aborts 2"
    " --series none --no-controls",
    "iommufd": "run 3 --rate 150 --ring 2048 --aborts 2 --no-controls",
    "iommufd_qemu": "run 3 --workload qemu --rate 60 --guest-memory 128 --no-controls",
    "iommufd_qemu/stock": "run 3 --workload qemu --rate 60 --guest-memory 128 --series none"
    " --no-controls",
}
FAULTS_KEPT = 8
_LEFT_OUT = {"console.log", "dialogue.log"}


def renew(name: str) -> None:
    """Run it; each of its trials for which there is a recording replaces that one.

    A name of one trial's folder is where the main run goes.
    """
    folder = RECORDED / name
    alone = (folder / "trial.json").exists()
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-P", "-m", "common", *RECORDINGS[name].split()]
        # A kernel without our series is an expected failure, whose exit status is 0.
        subprocess.run(
            command, env=os.environ | {"KEXEC_STAGES_RUNS": runs}, cwd=CHECKOUT, check=True
        )
        for trial in sorted((Path(runs) / "latest").iterdir()):
            recording = folder if alone and trial.name == "main" else folder / trial.name
            if recording.is_dir() and (trial / "trial.json").exists():
                _replace(trial, recording)


def _replace(trial: Path, recording: Path) -> None:
    shutil.rmtree(recording)
    recording.mkdir()
    for source in sorted(trial.iterdir()):
        if source.name not in _LEFT_OUT:
            raw = source.read_bytes().replace(str(Path.home()).encode(), b"/home/user")
            if source.name == "qemu-trace.log":
                raw = _thinned(raw)
            (recording / source.name).write_bytes(raw)


def _thinned(trace: bytes) -> bytes:
    kept, faults = [], 0
    for line in trace.splitlines(keepends=True):
        faults += b":vtd_dmar_fault" in line
        if b":vtd_dmar_fault" not in line or faults % FAULTS_KEPT == 0:
            kept.append(line)
    return b"".join(kept)


if __name__ == "__main__":
    for chosen in sys.argv[1:] or RECORDINGS:
        renew(chosen)

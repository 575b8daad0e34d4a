# SPDX-License-Identifier: GPL-2.0-only
"""Runs made of recorded trials, as `run` leaves them, and made anew after an edit."""

from __future__ import annotations

import array
import datetime
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.record.evidence import Made, Run, collect
from common.record.raw import read_setting
from common.record.seal import seal
from common.record.sources import digests
from common.record.stored_file import read_stamped
from common.record.trial_files import MADE, RECORD
from common.stage.configured import configured_as_recorded
from common.stage.loading import load_stage

_APART_NS = 1_000_000_000
_TIMES = {"t", "started_ns", "ended_ns"}


def store_run(folder: Path, *trials: tuple[Path, str], stage: int = 1) -> Path:
    """A sealed run of recorded trials (folder, name in the run), one after the other."""
    folder.mkdir(exist_ok=True)
    end = 0
    for source, name in trials:
        target = folder / name
        shutil.copytree(source, target)
        setting = json.loads((target / "trial.json").read_text())
        attempt = re.search(r"-attempt-(\d)$", name)
        setting |= {"name": name, "attempt": int(attempt[1]) if attempt else 1}
        (target / "trial.json").write_text(json.dumps(setting))
        if setting["started_ns"] <= end:
            shift(target, end + _APART_NS - setting["started_ns"])
        end = json.loads((target / "trial.json").read_text())["ended_ns"]
        for path in target.glob("*.jsonl"):
            if path.stem in ("console", "dialogue", "guest"):
                texts = [entry.text for entry in read_stamped(path)]
                path.with_suffix(".log").write_bytes("".join(f"{t}\r\n" for t in texts).encode())
    make(folder, stage=stage)
    write_record(folder, stage=stage)
    return folder


def make(folder: Path, *, stage: int = 1) -> None:
    """run.json, and the nonces that follow from it: as if this checkout had made the run."""
    settings = [read_setting(path.parent) for path in folder.glob("*/trial.json")]
    settings.sort(key=lambda setting: setting.started_ns)
    began = (settings[0].started_ns + settings[0].clock_offset_ns) / 1e9
    made = Made(
        stage=stage,
        tool="kexec-stages 0.1.0",
        commit="0123456789ab",
        sources=digests(),
        started=datetime.datetime.fromtimestamp(began, datetime.UTC).isoformat(timespec="seconds"),
        command=("run", str(stage)),
        planned=tuple(dict.fromkeys(setting.plan for setting in settings)),
    )
    (folder / MADE).write_text(made.text())
    for setting in settings:
        rename_nonce(folder / setting.name, setting.nonce, made.nonce(setting.name))


def rename_nonce(trial: Path, old: str, new: str) -> None:
    """In all that the trial's files say; pages that hold it nobody has any more."""
    for path in trial.iterdir():
        if path.suffix != ".bin":
            content = path.read_bytes().replace(old.encode(), new.encode())
            number = re.compile(rb"\b%d\b" % int(old, 16))
            path.write_bytes(number.sub(b"%d" % int(new, 16), content))


def shift(trial: Path, by: int) -> None:
    """The same trial, `by` ns later on the host's clock, which was set back by as much."""
    for path in trial.iterdir():
        if path.suffix == ".bin":
            _shift_frames(path, by)
        elif path.name == "trial.json" or path.suffix == ".json":
            path.write_text(json.dumps(_shifted(json.loads(path.read_text()), by)))
        elif path.suffix == ".jsonl":
            lines = path.read_text().split("\n")[:-1]
            rows = [_shifted_row(path.name, json.loads(line), by) for line in lines]
            path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
    setting = json.loads((trial / "trial.json").read_text())
    setting["clock_offset_ns"] -= by
    (trial / "trial.json").write_text(json.dumps(setting))


def _shifted_row(name: str, row: Any, by: int) -> Any:
    if not isinstance(row, list):
        return _shifted(row, by)
    return (
        [t + by if isinstance(t, int) else t for t in row]
        if name[:4] == "away"
        else [
            row[0] + by,
            row[1],
        ]
    )


def _shifted(value: Any, by: int) -> Any:
    if isinstance(value, dict):
        return {k: v + by if k in _TIMES else _shifted(v, by) for k, v in value.items()}
    return [_shifted(v, by) for v in value] if isinstance(value, list) else value


def _shift_frames(path: Path, by: int) -> None:
    numbers = array.array("Q", path.read_bytes())
    for n in range(len(numbers)):
        if "landed" not in path.name or n % 3:
            numbers[n] += by
    path.write_bytes(numbers.tobytes())


def write_record(folder: Path, *, stage: int = 1) -> None:
    """record.json from the raw files, and the seal: what somebody with this program can do."""
    settings = [read_setting(path.parent) for path in folder.glob("*/trial.json")]
    longest = max(settings, key=lambda setting: setting.chain)
    declared = configured_as_recorded(load_stage(stage, longest.workload), longest)
    trials = [collect(folder / one.name, witness=declared.witness) for one in settings]
    made = Made.model_validate_json((folder / MADE).read_text())
    trials.sort(key=lambda trial: trial.setting.started_ns)
    (folder / RECORD).write_text(Run(**dict(made), trials=tuple(trials)).text())
    seal(folder)


def edit_json(path: Path, edit: Callable[[Any], Any]) -> None:
    """The file's one JSON value, after `edit`, which may change it in place or give another."""
    value = json.loads(path.read_text())
    found = edit(value)
    path.write_text(json.dumps(value if found is None else found) + "\n")

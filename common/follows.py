# SPDX-License-Identifier: GPL-2.0-only
"""Does a run's record follow from its raw files? Nothing of the record is believed here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from common.console import strip_prefix
from common.errors import UsageError
from common.last_look import FILE, LOG
from common.record import Run, Trial, collect, sha256
from common.serial_line import read_stamped
from common.stage import Stage

_LINES = ("console", "dialogue")
_MORE_LINES = ("guest",)
_TOLD = re.compile(r"(?:Kernel c|C)ommand line: (.*)")


def trials_from_raw(folder: Path, stage: Stage) -> tuple[Trial, ...]:
    """The trials of a run folder from their raw files alone, in the order in which they ran.

    Raises UsageError when one is half there or damaged.
    """
    folders = sorted(path.parent for path in folder.glob("*/trial.json"))
    trials = [collect(path, witness=stage.witness) for path in folders]
    for path, trial in zip(folders, trials, strict=True):
        if trial.setting.name != path.name:
            raise UsageError(
                f"{folder.name}: the trial in {path.name} says that it is {trial.setting.name!r}"
            )
    return tuple(sorted(trials, key=lambda trial: trial.setting.started_ns))


def disagreements(folder: Path, run: Run, trials: tuple[Trial, ...]) -> Iterator[str]:
    """What of the record, and of the stamped lines, does not follow; a clause each."""
    stored = {trial.setting.name: trial for trial in run.trials}
    for trial in trials:
        name = trial.setting.name
        if trial.setting.stage != run.stage:
            yield f"record.json is of stage {run.stage}, trial {name} of {trial.setting.stage}"
        if name not in stored:
            yield f"record.json leaves out trial {name}"
        elif stored[name] != trial:
            for where, said, found in differences(stored[name], trial):
                yield (
                    f"record.json says of trial {name} what its raw files do not:"
                    f" {where} is {said}, by the raw files {found}"
                )
        yield from _unlike_bytes(folder / name)
        yield from _unlike_command_line(folder / name, trial)
        yield from _unlike_log(folder / name, trial)
    for name in sorted(stored.keys() - {trial.setting.name for trial in trials}):
        yield f"record.json has a trial {name} that left no raw files"
    yield from _unlike_configs(folder, trials)


def _unlike_bytes(folder: Path) -> Iterator[str]:
    """The stamped lines must be the lines of the bytes as they came."""
    more = [name for name in _MORE_LINES if (folder / f"{name}.jsonl").exists()]
    for name in (*_LINES, *more):
        path = folder / f"{name}.log"
        if not path.exists():
            yield f"{folder.name}/{path.name} is missing"
            continue
        *lines, rest = path.read_bytes().split(b"\n")
        lines += [rest] if rest else []
        raw = [line.rstrip(b"\r").decode("utf-8", "backslashreplace") for line in lines]
        # As one array, which is four times as fast; each line was read for itself before.
        entries = ",".join((folder / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")[:-1])
        stamped = [text for _, text in json.loads(f"[{entries}]")]
        if raw != stamped:
            number = next(
                (n for n, (a, b) in enumerate(zip(raw, stamped, strict=False), 1) if a != b),
                min(len(raw), len(stamped)) + 1,
            )
            yield f"{folder.name}/{name}.jsonl, line {number}, is not what {name}.log has"


def _unlike_log(folder: Path, trial: Trial) -> Iterator[str]:
    """A log that was read in RAM lies there once more, as text for people."""
    look, path = trial.last_look, folder / LOG
    wanted = look.log_text() if look else ""
    found = path.read_text(errors="replace") if path.exists() else ""
    if found != wanted:
        yield f"{folder.name}/{LOG} is not what {FILE} has"


def _unlike_command_line(folder: Path, trial: Trial) -> Iterator[str]:
    """What the harness says that it asked for must be what the outgoing kernel was told.

    The command line names the control and holds the nonce, so that neither a control can be
    passed off as a main run nor a console be taken from another trial.
    """
    setting = trial.setting
    words = (word.partition("=") for word in setting.cmdline.split())
    control = next((value for key, _, value in words if key == "stage.control"), None)
    if control != setting.control:
        yield f"{folder.name}/trial.json is of control {setting.control}, its cmdline of {control}"
    messages = (strip_prefix(line.text) for line in read_stamped(folder / "console.jsonl"))
    # It says it twice, early and later. One will do: a UART may lose characters.
    told = [found[1] for text in messages if (found := _TOLD.match(text))][:2]
    if told and setting.cmdline not in told:
        yield f"{folder.name}/trial.json has another cmdline than the console"


def _unlike_configs(folder: Path, trials: tuple[Trial, ...]) -> Iterator[str]:
    """The kernels' configurations lie beside the trials; controls may have kernels of their own."""
    for main in (trial.setting for trial in trials if trial.setting.control is None):
        for side, kernel in (("outgoing", main.outgoing), ("incoming", main.incoming)):
            config = folder / f"{side}.config"
            if config.exists() and sha256(config) != kernel.config_sha256:
                yield f"{config.name} is not the configuration that trial {main.name} names"


def differences(stored: Trial, found: Trial) -> Iterator[tuple[str, str, str]]:
    """Where two trials differ: a path into the record, and both values in short."""
    yield from _walk("", stored, found)


def _walk(path: str, a: Any, b: Any) -> Iterator[tuple[str, str, str]]:
    if a == b:
        return
    if isinstance(a, BaseModel) and isinstance(b, type(a)):
        a, b = dict(a), dict(b)
    elif isinstance(a, tuple | list) and isinstance(b, tuple | list):
        a, b = dict(enumerate(a)), dict(enumerate(b))
    if isinstance(a, dict) and isinstance(b, dict):
        missing = object()
        for key in [*a, *(key for key in b if key not in a)]:
            yield from _walk(f"{path}.{key}", a.get(key, missing), b.get(key, missing))
        return
    yield path.lstrip("."), _short(a), _short(b)


def _short(value: Any) -> str:
    if type(value) is object:
        return "absent"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

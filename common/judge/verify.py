# SPDX-License-Identifier: GPL-2.0-only
"""A run from its raw files alone; files that contradict each other are not a run.

Nothing of record.json is believed: it is what follows from the other files, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from common.errors import UsageError, first_of
from common.judge.verdict import disturbed, judge_trial
from common.record.console import strip_prefix
from common.record.cpus.last_look import FILE, LOG
from common.record.dialogue import Line
from common.record.evidence import Made, Run, Trial, trial_of
from common.record.qemu import trace as qemu_trace
from common.record.raw import RawTrial, read_raw, read_setting
from common.record.seal import sha256
from common.record.setting import Setting
from common.record.sources import other_code
from common.record.stored_file import first_fault, read_bytes, read_stamped
from common.record.trial_files import MADE, check_trial
from common.stage.configured import configured_as_recorded
from common.stage.declaration import Stage
from common.stage.loading import load_stage

_TOLD = re.compile(r"(?:Kernel c|C)ommand line: (.*)")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", re.ASCII)
_MOST_TOLD = 20
# What all trials of a run have in common.
_OF_THE_RUN = (
    *("stage", "workload", "lane", "series", "one_kernel", "guest_image", "options"),
    *("architecture", "cpu_model"),
)
# Between the run's start and its first machine's: initramfs are packed, workloads compiled.
_SETUP_SECONDS = 3600


def run_from_raw(folder: Path) -> tuple[Run, Stage]:
    """(the run of a folder that check_tree() has passed, its stage as configured for that run).

    Raises UsageError where a file is missing or damaged, or contradicts another one.
    """
    made = read_made(folder)
    folders = sorted(path for path in folder.iterdir() if path.is_dir())
    stage = _stage_of(folder, made, [read_setting(path) for path in folders])
    trials: list[Trial] = []
    faults: list[str] = []
    for path in folders:
        check_trial(path, stage.label, stage.files)
        raw = read_raw(path)
        trials.append(trial_of(raw, witness=stage.witness))
        faults += islice(_unlike(raw, made, stage), _MOST_TOLD)
        faults += _unlike_log(path, trials[-1])
    trials.sort(key=lambda trial: trial.setting.started_ns)
    faults += islice(_amiss(folder, made, trials, stage), _MOST_TOLD)
    if faults:
        raise UsageError(f"{folder.name}: {first_of(faults)}")
    return Run(**dict(made), trials=tuple(trials)), stage


def read_made(folder: Path) -> Made:
    """What made the run, from run.json. Raises UsageError."""
    try:
        return Made.model_validate_json(read_bytes(folder / MADE))
    except FileNotFoundError:
        raise UsageError(f"{folder.name} is not a finished run: it has no {MADE}") from None
    except ValidationError as error:
        raise UsageError(f"{folder.name}: {MADE} is damaged: {first_fault(error)}") from None


def _stage_of(folder: Path, made: Made, settings: Sequence[Setting]) -> Stage:
    """The declaration that the run was made by. Raises UsageError where it was made by several."""
    if not settings:
        raise UsageError(f"{folder.name} holds no trial")
    # of a chain only the main runs and its own controls say that it is one
    longest = max(settings, key=lambda setting: setting.chain)
    for setting in settings:
        for key in _OF_THE_RUN:
            if getattr(setting, key) != getattr(longest, key):
                raise UsageError(
                    f"{folder.name}: {setting.name} and {longest.name} differ in {key}: they are"
                    " not trials of one run"
                )
        if setting.chain not in (1, longest.chain):
            raise UsageError(
                f"{folder.name}: trials of {setting.chain} and {longest.chain} updates"
            )
    if longest.stage != made.stage:
        raise UsageError(f"{folder.name}: {MADE} is of stage {made.stage}, its trials of another")
    stage = configured_as_recorded(load_stage(longest.stage, longest.workload), longest)
    _check_options(folder, longest, stage)
    return stage


def _check_options(folder: Path, setting: Setting, stage: Stage) -> None:
    """Raises UsageError for options that the stage has not, or that nobody could choose."""
    wanted = {option.parameter: option for option in stage.options}
    if setting.options.keys() != wanted.keys():
        raise UsageError(
            f"{folder.name}: {setting.name} has the options {', '.join(setting.options) or 'none'};"
            f" stage {stage.number} has {', '.join(wanted)}"
        )
    for name, option in wanted.items():
        try:
            option.value(setting.options[name])
        except ValueError as error:
            raise UsageError(
                f"{folder.name}: option {name} is {setting.options[name]}; nobody can choose that"
            ) from error


def _unlike(raw: RawTrial, made: Made, stage: Stage) -> Iterator[str]:
    """What the files of one trial do not agree in; a clause each."""
    setting, name = raw.setting, raw.folder.name
    if setting.name != name:
        yield f"the trial in {name} says that it is {setting.name!r}"
    elif setting.nonce != made.nonce(name):
        yield f"{name} is not a trial of this run: its nonce does not follow from {MADE}"
    asked = {*qemu_trace.ALWAYS, *stage.traces}
    if qemu_trace.asked_of(setting.argv) != asked:
        yield f"{name}/trial.json: argv asks QEMU for other trace events than the stage"
    if f"stages-{setting.nonce}<" not in read_bytes(raw.folder / "domain.xml").decode(
        "utf-8", "replace"
    ):
        yield f"{name}/domain.xml is of another machine"
    yield from _unlike_bytes(raw)
    yield from _unlike_command_line(raw)


def _unlike_bytes(raw: RawTrial) -> Iterator[str]:
    """The stamped lines must be the lines of the bytes as they came."""
    lines = dict(raw.lines)
    if (raw.folder / "guest.jsonl").exists():
        lines["guest"] = read_stamped(raw.folder / "guest.jsonl")
    for name, stamped in lines.items():
        text = [line.text for line in stamped]
        *whole, rest = read_bytes(raw.folder / f"{name}.log").split(b"\n")
        whole += [rest] if rest else []
        came = [line.rstrip(b"\r").decode("utf-8", "backslashreplace") for line in whole]
        if came != text:
            number = next(
                (n for n, (a, b) in enumerate(zip(came, text, strict=False), 1) if a != b),
                min(len(came), len(text)) + 1,
            )
            yield f"{raw.folder.name}/{name}.jsonl, line {number}, is not what {name}.log has"


def _unlike_log(folder: Path, trial: Trial) -> Iterator[str]:
    """A log that was read in RAM lies there once more, as text for people."""
    look, path = trial.last_look, folder / LOG
    wanted = look.log_text() if look else ""
    found = read_bytes(path).decode("utf-8", "replace") if path.exists() else ""
    if found != wanted:
        yield f"{folder.name}/{LOG} is not what {FILE} has"


def _unlike_command_line(raw: RawTrial) -> Iterator[str]:
    """What the harness says that it asked for must be what the outgoing kernel was told.

    The command line names the control and holds the nonce, so that neither a control can be
    passed off as a main run nor a console be taken from another trial.
    """
    setting, name = raw.setting, raw.folder.name
    pairs = (word.partition("=") for word in setting.cmdline.split())
    words = {key.removeprefix("stage."): value for key, _, value in pairs if key[:6] == "stage."}
    if words.get("control") != setting.control:
        yield (
            f"{name}/trial.json is of control {setting.control}, its cmdline of"
            f" {words.get('control')}"
        )
    if words.get("chain", "1") != str(setting.chain):
        yield f"{name}/trial.json has a chain of {setting.chain}, its cmdline another"
    for key, value in {} if setting.control else setting.options.items():
        if words.get(key) != value:
            yield f"{name}/trial.json has {key} {value}, its cmdline {words.get(key)}"
    told = _command_lines(raw.lines["console"])
    if told and setting.cmdline not in told:
        yield f"{name}/trial.json has another cmdline than the console"


def _command_lines(console: Sequence[Line]) -> list[str]:
    """It says it twice, early and later. One will do: a UART may lose characters."""
    messages = (strip_prefix(line.text) for line in console if "ommand line: " in line.text)
    return [found[1] for text in messages if (found := _TOLD.match(text))][:2]


def _amiss(folder: Path, made: Made, trials: Sequence[Trial], stage: Stage) -> Iterator[str]:
    """What of the trials together is not as one run leaves them, in the order of time."""
    settings = [trial.setting for trial in trials]
    for one, following in pairwise(settings):
        if one.ended_ns > following.started_ns:
            yield f"{one.name} and {following.name} ran at the same time"
        if one.host.model_copy(update={"preferred": following.host.preferred}) != following.host:
            yield f"{one.name} and {following.name} ran on different hosts"
    yield from _unplanned(made, trials, stage)
    yield from _other_kernels(settings, stage)
    begun = (settings[0].started_ns + settings[0].clock_offset_ns) / 1e9
    if not -1 <= begun - _began(made.started) <= _SETUP_SECONDS:
        yield f"{MADE} says {made.started!r}; {settings[0].name} was started at another time"
    for setting in settings:
        for side, kernel in (("outgoing", setting.outgoing), ("incoming", setting.incoming)):
            config = folder / f"{side}.config"
            own = setting.control is not None
            if not own and config.exists() and sha256(config) != kernel.config_sha256:
                yield f"{config.name} is not the configuration that trial {setting.name} names"


def _began(started: str) -> float:
    """Seconds since the epoch; 0 for what is no time of this program's."""
    try:
        return datetime.fromisoformat(started).timestamp() if _TIME.fullmatch(started) else 0.0
    except (ValueError, OverflowError):
        return 0.0


def _unplanned(made: Made, trials: Sequence[Trial], stage: Stage) -> Iterator[str]:
    """Each planned trial in its turn, and no other; further attempts at disturbed ones."""
    for trial in trials:
        setting = trial.setting
        named = f"control-{setting.control}" if setting.control else setting.plan
        if named != setting.plan or (setting.control is None and named[:8] == "control-"):
            yield f"trial {setting.name} is of control {setting.control}"
            return
        if setting.control:
            stage.control(setting.control)
    ran = [*dict.fromkeys(trial.setting.plan for trial in trials)]
    for name in ran:
        numbers = [trial.setting.attempt for trial in trials if trial.setting.plan == name]
        if numbers != list(range(1, len(numbers) + 1)):
            yield f"of the attempts at {name} there are {', '.join(map(str, numbers))}"
    # Which attempt counts is for the checks of the code that made the run.
    for trial, following in () if other_code(made.sources) else pairwise(trials):
        if trial.setting.plan == following.setting.plan and not disturbed(trial, stage):
            yield f"{following.setting.name} was run, though {trial.setting.name} counts"
    if ran == list(made.planned):
        return
    if extra := [name for name in ran if name not in made.planned]:
        yield f"trial {extra[0]} was not planned ({MADE})"
    elif missing := [name for name in made.planned if name not in ran]:
        # no controls after a main run that failed for the cause that was expected
        expected = any(judge_trial(trial, stage).status == "XFAIL" for trial in trials)
        if not expected or any(name[:8] != "control-" for name in missing):
            yield f"trial {missing[0]} was planned ({MADE}), and left nothing"
    else:
        yield f"the trials were not run in the order in which they were planned ({MADE})"


def _other_kernels(settings: Sequence[Setting], stage: Stage) -> Iterator[str]:
    """One pair for the run, but for the controls that have kernels of their own."""
    shared = [s for s in settings if not (s.control and stage.control(s.control).own_kernels)]
    for setting in shared[1:]:
        if setting.outgoing != shared[0].outgoing:
            yield f"{setting.name} has another outgoing kernel than {shared[0].name}"
    pairs = [s for s in shared if not (s.control and stage.control(s.control).same_kernel)]
    for setting in pairs[1:]:
        if setting.incoming != pairs[0].incoming:
            yield f"{setting.name} has another incoming kernel than {pairs[0].name}"


def differences(stored: BaseModel, found: BaseModel) -> Iterator[tuple[str, str, str]]:
    """Where two records differ: (dotted path to the value, stored value, found value).

    Values are their repr(), cut to 60 characters; "absent" for none.
    """
    yield from _walk("", *(one.model_dump(mode="json") for one in (stored, found)))


def _walk(path: str, a: Any, b: Any) -> Iterator[tuple[str, str, str]]:
    if a == b:
        return
    if isinstance(a, list) and isinstance(b, list):
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

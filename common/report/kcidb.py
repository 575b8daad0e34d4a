# SPDX-License-Identifier: GPL-2.0-only
"""Runs as KCIDB objects, I/O schema v5.3, for KernelCI's and other databases of results. Pure.

A checkout for each source with its patches, a build for each kernel, and for each run a test for
the verdict, each check, each control and each figure, with paths as KTAP names them. Tests belong
to the incoming kernel's build; the outgoing one is in `misc`. Fields that ask for a public URL, a
commit or the whole digest of each patch are left out: no run records them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from common.errors import UsageError
from common.judge.stored_run import StoredRun
from common.judge.verdict import Answer, ControlVerdict, TrialVerdict
from common.record.evidence import Trial
from common.record.setting import KernelFacts
from common.report.ktap import named_answers
from common.report.text import crash_lines
from common.text import printable, without_home

VERSION = {"major": 5, "minor": 3}
ORIGIN = "kexec_stages"
ROOT = "kexec_stages"
"""The node of KCIDB's tree of tests that all of ours are below."""
_ORIGIN = re.compile(r"[a-z0-9_]+")
_EXCERPT = 16384
# FAIL: the kernel is at fault. ERROR: we or the host are, and nothing is known of the kernel. No
# word for an expected failure but SKIP, which JUnit's report has for it too. A control is DONE at
# best: PASS would call right the kernel that was corrupted for it.
_OF_RUN = {
    "PASS": "PASS",
    "XPASS": "PASS",
    "XFAIL": "SKIP",
    "REFUSED": "FAIL",
    "FAIL": "FAIL",
    "CRASHED": "FAIL",
    "TIMEOUT": "FAIL",
    "BROKEN": "ERROR",
    "DISTURBED": "ERROR",
    "ERROR": "ERROR",
}
Object = dict[str, Any]


def report_kcidb(runs: Sequence[StoredRun], *, origin: str = ORIGIN) -> str:
    """The objects as JSON text. `origin`: the CI system that submits them.

    Raises UsageError for an origin that KCIDB does not take, and for a run without any trial:
    there is no test without a build.
    """
    if not _ORIGIN.fullmatch(origin):
        raise UsageError(f"--origin: {origin!r} must consist of a-z, 0-9 and _")
    if empty := [one.name for one in runs if not one.run.trials]:
        raise UsageError(f"{empty[0]}: nothing was run, and KCIDB has no test without a build")
    kernels = [
        kernel
        for one in runs
        for trial in one.run.trials
        for kernel in (trial.setting.outgoing, trial.setting.incoming)
    ]
    built = {
        kernel.build_id: trial.setting.architecture
        for one in runs
        for trial in one.run.trials
        for kernel in (trial.setting.outgoing, trial.setting.incoming)
    }
    report = {
        "version": VERSION,
        "checkouts": _unlike(_checkout(kernel, origin) for kernel in kernels),
        "builds": _unlike(_build(kernel, origin, built[kernel.build_id]) for kernel in kernels),
        "tests": [test for one in runs for test in _tests(one, origin)],
    }
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"


def _unlike(objects: Iterator[Object]) -> list[Object]:
    return list({one["id"]: one for one in objects}.values())


def _checkout_id(kernel: KernelFacts, origin: str) -> str:
    of = kernel.image_sha256 if kernel.prebuilt else "\n".join((kernel.source, *kernel.patches))
    return f"{origin}:{hashlib.sha256(of.encode()).hexdigest()[:24]}"


def _checkout(kernel: KernelFacts, origin: str) -> Object:
    found: Object = {
        "id": _checkout_id(kernel, origin),
        "origin": origin,
        "comment": _text(kernel.source),
        "misc": {"patches": [_text(patch) for patch in kernel.patches]},
    }
    if not kernel.prebuilt:
        found["valid"] = True
        if not kernel.patches:
            found["patchset_hash"] = ""
    return found


def _build(kernel: KernelFacts, origin: str, architecture: str) -> Object:
    found: Object = {
        "id": f"{origin}:{kernel.build_id}",
        "origin": origin,
        "checkout_id": _checkout_id(kernel, origin),
        "architecture": architecture,
        "comment": _text(kernel.release),
        "misc": {
            "release": kernel.release,
            "image_sha256": kernel.image_sha256,
            "config_sha256": kernel.config_sha256,
        },
    }
    if not kernel.prebuilt:
        found["status"] = "PASS"
    return found


def _tests(one: StoredRun, origin: str) -> Iterator[Object]:
    trials = {trial.setting.name: trial for trial in one.run.trials}
    mains = {main.trial: main for main in one.verdict.trials}
    first = trials[next(iter(mains))] if mains else one.run.trials[0]
    status = _OF_RUN[one.verdict.status]
    whole = _test(one, first, origin, "", status if mains or status != "PASS" else "DONE")
    whole["comment"] = _text(f"{one.verdict.status}: {one.verdict.why}")
    crashes = [
        line
        for trial in one.run.trials
        if trial.setting.crash and trial.setting.control is None
        for line in crash_lines(trial.setting.name, trial.setting.crash)
    ]
    if crashes:
        whole["log_excerpt"] = _text("\n".join(crashes))[:_EXCERPT]
    yield whole
    for name, main, answer in named_answers(one.verdict):
        yield _check(one, trials[main], origin, name, mains[main], answer)
    for control in one.verdict.controls:
        yield _control(one, trials[control.trial], origin, control)
    for main in mains:
        for phase, ms in one.stage.phases(trials[main]).items():
            name = f"{main}.{phase}" if len(mains) > 1 else phase
            yield _figure(one, trials[main], origin, name, ms / 1e3)


def _test(one: StoredRun, trial: Trial, origin: str, name: str, status: str) -> Object:
    """What every test has; `name` is empty for the run as a whole."""
    setting = trial.setting
    host = setting.host
    began = datetime.fromtimestamp((setting.started_ns + setting.clock_offset_ns) / 1e9, UTC)
    path = [ROOT, _node(one.stage.label), *(_node(part) for part in name.split(".") if part)]
    return {
        "id": f"{origin}:{_text(one.name)}{f':{_text(name)}' if name else ''}",
        "origin": origin,
        "build_id": f"{origin}:{setting.incoming.build_id}",
        "path": ".".join(path),
        "status": status,
        "start_time": began.isoformat(),
        "environment": {
            "comment": _text(f"{host.accelerator} on {host.cpu}, {host.cpus} CPUs"),
            "misc": {"accelerator_reason": _text(host.accelerator_reason), "lane": setting.lane},
        },
        "misc": {
            "trial": setting.name,
            "outgoing_build_id": f"{origin}:{setting.outgoing.build_id}",
            "seal": one.seal,
            "program": _text(f"{one.run.tool}, commit {one.run.commit}"),
        },
    }


def _check(
    one: StoredRun, trial: Trial, origin: str, name: str, main: TrialVerdict, answer: Answer
) -> Object:
    outcome = answer.outcome
    status = "PASS"
    if not outcome.held:
        ours = outcome.status == "DISTURBED" or main.status in ("DISTURBED", "ERROR")
        status = "SKIP" if not outcome.fell else "ERROR" if ours else "FAIL"
    found = _test(one, trial, origin, name, status)
    found["comment"] = _text(outcome.seen)
    if not outcome.held:
        cause = f"{outcome.status}: {answer.cause}\n" if answer.cause else ""
        found["log_excerpt"] = _text(
            f"{cause}{outcome.status}: {answer.question}\nexpected {outcome.expected}\nseen"
            f" {outcome.seen}\nevidence {outcome.evidence}"
        )[:_EXCERPT]
    return found


def _control(one: StoredRun, trial: Trial, origin: str, control: ControlVerdict) -> Object:
    setting = trial.setting
    status = "DONE" if control.good else "ERROR"
    found = _test(one, trial, origin, f"control_{control.control}", status)
    found["comment"] = _text(f"{control.status}: {control.why}")
    found["duration"] = (setting.ended_ns - setting.started_ns) / 1e9
    return found


def _figure(one: StoredRun, trial: Trial, origin: str, name: str, seconds: float) -> Object:
    main, _, phase = name.rpartition(".") if name.startswith(trial.setting.name) else ("", "", name)
    found = _test(one, trial, origin, ".".join(p for p in (main, "figures", phase) if p), "DONE")
    found["comment"] = _text(phase)
    found["number"] = {"value": seconds, "unit": "s", "prefix": "metric"}
    return found


def _node(name: str) -> str:
    """The name as a node of a path of KCIDB's."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_") or "_"


def _text(text: str) -> str:
    """What a machine said, as a database that others read may have it."""
    return printable(without_home(text))

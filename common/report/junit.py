# SPDX-License-Identifier: GPL-2.0-only
"""Verdicts as JUnit XML, as Jenkins' junit-10.xsd and GitLab read it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree as ET

from common.judge.stored_run import StoredRun
from common.judge.verdict import Answer, ControlVerdict, TrialVerdict, Verdict
from common.record.evidence import Run
from common.report.host import machine_words
from common.stage.layouts import tried

# What XML 1.0 cannot say, not even escaped; a console can.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def report_junit(runs: Sequence[StoredRun]) -> str:
    """The suites of the runs as XML text."""
    return junit_text(junit_suites(runs))


def junit_suites(runs: Sequence[StoredRun]) -> ET.Element:
    """A test suite for each run: a case for each check, each control, and each trial's end.

    A check that is XFAIL or N/A is skipped with its cause: JUnit has no other word for it.
    """
    suites = ET.Element("testsuites", name="kexec-stages")
    for stored in runs:
        suites.append(_suite(stored))
    for attribute in ("tests", "failures", "errors"):
        suites.set(attribute, str(sum(int(suite.get(attribute, "0")) for suite in suites)))
    return suites


def junit_text(suites: ET.Element) -> str:
    """The suites as text, in lines."""
    ET.indent(suites)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"
    )


def _suite(stored: StoredRun) -> ET.Element:
    verdict, stage = stored.verdict, stored.stage.label
    seconds = {
        trial.setting.name: (trial.setting.ended_ns - trial.setting.started_ns) / 1e9
        for trial in stored.run.trials
    }
    cases = [
        case for trial in verdict.trials for case in _trial(stage, trial, seconds[trial.trial])
    ]
    cases += [_control(stage, control, seconds[control.trial]) for control in verdict.controls]
    if not cases:
        cases = [_case(stage, "verdict", 0.0)]
        _add(cases[0], "error", verdict.why, verdict.status)
    suite = ET.Element(
        "testsuite",
        name=stage,
        tests=str(len(cases)),
        failures=_count(cases, "failure"),
        errors=_count(cases, "error"),
        skipped=_count(cases, "skipped"),
        time=f"{sum(seconds.values()):.3f}",
        timestamp=stored.run.started[:19],
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(stored.run, verdict):
        ET.SubElement(properties, "property", name=name, value=_xml(value))
    ET.SubElement(properties, "property", name="seal", value=stored.seal)
    suite.extend(cases)
    return suite


def _properties(run: Run, verdict: Verdict) -> Iterable[tuple[str, str]]:
    yield "verdict", f"{verdict.status}: {verdict.why}"
    yield "program", f"{run.tool}, commit {run.commit}"
    if run.trials:
        setting = run.trials[0].setting
        yield "lane", setting.lane
        yield "layouts", tried(run.trials)
        if setting.append:
            yield "append", " ".join(setting.append)
        yield "from", f"{setting.outgoing.release} {setting.outgoing.build_id}"
        yield "to", f"{setting.incoming.release} {setting.incoming.build_id}"
        if words := machine_words(setting):
            yield "machine", words
        yield "accelerator", f"{setting.host.accelerator} ({setting.host.accelerator_reason})"


def _trial(stage: str, trial: TrialVerdict, seconds: float) -> Iterable[ET.Element]:
    end = _case(f"{stage}.{trial.trial}", "trial_ended", seconds)
    if trial.status in ("ERROR", "CRASHED", "TIMEOUT", "DISTURBED"):
        _add(end, "error", trial.why, trial.status)
    yield end
    for answer in trial.answers:
        case = _case(f"{stage}.{trial.trial}", answer.check, 0.0)
        if not answer.outcome.held:
            _not_passed(case, answer)
        yield case


def _not_passed(case: ET.Element, answer: Answer) -> None:
    outcome = answer.outcome
    if not outcome.fell:
        why = f"promise of {answer.whose}: {answer.cause or outcome.seen}"
        _add(case, "skipped", f"{outcome.status}: {why}", outcome.status)
        return
    kind = "error" if outcome.status == "DISTURBED" else "failure"
    said = _add(case, kind, f"expected {outcome.expected}; seen {outcome.seen}", outcome.status)
    said.text = _xml(f"{answer.question}\nevidence: {outcome.evidence}")


def _control(stage: str, control: ControlVerdict, seconds: float) -> ET.Element:
    case = _case(f"{stage}.controls", control.control, seconds)
    if not control.good:
        kind = "error" if control.status in ("ERROR", "DISTURBED") else "failure"
        _add(case, kind, control.why, control.status)
    return case


def _case(classname: str, name: str, seconds: float) -> ET.Element:
    return ET.Element("testcase", classname=classname, name=name, time=f"{seconds:.3f}")


def _add(case: ET.Element, kind: str, message: str, type: str) -> ET.Element:
    return ET.SubElement(case, kind, message=_xml(message), type=type)


def _count(cases: Iterable[ET.Element], kind: str) -> str:
    return str(sum(case.find(kind) is not None for case in cases))


def _xml(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)

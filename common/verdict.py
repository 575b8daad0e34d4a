# SPDX-License-Identifier: GPL-2.0-only
"""From record to verdict: a pure function, so that a stored run can be judged again."""

from __future__ import annotations

from typing import Literal

from common.chain import ask
from common.dialogue import Stored
from common.errors import Exit
from common.record import Run, Trial
from common.stage import Check, Control, Outcome, Stage

TrialStatus = Literal["PASS", "XFAIL", "REFUSED", "FAIL", "ERROR", "CRASHED", "TIMEOUT"]
ControlStatus = Literal["FAILED AS IT MUST", "PASSED", "WRONG REASON", "ERROR"]
RunStatus = Literal[
    "PASS", "XFAIL", "SKIP", "REFUSED", "FAIL", "BROKEN", "ERROR", "CRASHED", "TIMEOUT"
]
"""From the best to the worst, as far as that can be said. No stored run is a SKIP: `gate` says so
of a stage that it could not run."""

EXIT_OF: dict[RunStatus, Exit] = {
    "PASS": Exit.PASS,
    "XFAIL": Exit.PASS,
    "SKIP": Exit.SKIP,
    "REFUSED": Exit.FAIL,
    "FAIL": Exit.FAIL,
    "BROKEN": Exit.FAIL,
    "ERROR": Exit.HARNESS,
    "CRASHED": Exit.CRASHED,
    "TIMEOUT": Exit.TIMEOUT,
}


class Answer(Stored):
    """A check of a trial with its outcome."""

    check: str
    question: str
    outcome: Outcome


class TrialVerdict(Stored):
    """A main run or a repeat of it."""

    trial: str
    status: TrialStatus
    why: str
    answers: tuple[Answer, ...]


class ControlVerdict(Stored):
    """A control: good when it failed, for its own reason, and in nothing else."""

    trial: str
    control: str
    status: ControlStatus
    why: str
    answers: tuple[Answer, ...]

    @property
    def good(self) -> bool:
        """True when the control broke what it must break."""
        return self.status == "FAILED AS IT MUST"


class Verdict(Stored):
    """What a run shows. `why` is one sentence: the first thing that is wrong."""

    stage: int
    status: RunStatus
    why: str
    trials: tuple[TrialVerdict, ...]
    controls: tuple[ControlVerdict, ...]

    @property
    def exit(self) -> Exit:
        """The exit status that scripts see."""
        return EXIT_OF[self.status]


def judge(run: Run, stage: Stage) -> Verdict:
    """The verdict on a run, from its record alone."""
    mains = tuple(judge_trial(t, stage) for t in run.trials if t.setting.control is None)
    controls = tuple(
        judge_control(t, stage.control(t.setting.control), stage)
        for t in run.trials
        if t.setting.control is not None
    )
    status, why = _sum_up(mains, controls)
    return Verdict(stage=stage.number, status=status, why=why, trials=mains, controls=controls)


def _sum_up(
    mains: tuple[TrialVerdict, ...], controls: tuple[ControlVerdict, ...]
) -> tuple[RunStatus, str]:
    if not mains and not controls:
        return "ERROR", "nothing was run"
    for main in mains:
        if main.status not in ("PASS", "XFAIL"):
            return main.status, f"{main.trial}: {main.why}"
    expected = [main for main in mains if main.status == "XFAIL"]
    for control in controls:
        if control.status == "ERROR":
            return "ERROR", f"{control.trial}: {control.why}"
        # What a control breaks cannot be told apart where the main run is broken already.
        if not control.good and not (expected and control.status == "WRONG REASON"):
            return "BROKEN", f"{control.trial} {control.status}: {control.why}"
    if expected:
        return "XFAIL", f"{expected[0].trial}: {expected[0].why}"
    failed = "no controls run"
    if controls:
        failed = f"{len(controls)} control{'s' * (len(controls) > 1)} failed as "
        failed += "they must" if len(controls) > 1 else "it must"
    if not mains:
        return "PASS", f"{failed}; the stage itself was not run, so none of its claims is shown"
    return "PASS", f"{len(mains)}/{len(mains)} passed, {failed}"


def judge_trial(trial: Trial, stage: Stage) -> TrialVerdict:
    """A run that must pass: every check, and there must be checks."""
    answers = _ask(trial, stage.checks)
    status, why = _trial_status(trial, stage, answers)
    return TrialVerdict(trial=trial.setting.name, status=status, why=why, answers=answers)


def _trial_status(
    trial: Trial, stage: Stage, answers: tuple[Answer, ...]
) -> tuple[TrialStatus, str]:
    ended, detail = trial.setting.ended, trial.setting.ended_detail
    if trial.console.refusals:
        # LUO panics by its own decision then; that is no crash to look for a cause of
        return "REFUSED", f"the incoming kernel refuses the handover: {trial.console.refusals[0]}"
    if ended == "crashed" or any(splat.fatal for splat in trial.console.splats):
        return "CRASHED", detail
    if ended == "timeout":
        return "TIMEOUT", detail
    if ended in ("gone", "interrupted"):
        return "ERROR", detail
    if "blind" in trial.witness:
        return "ERROR", str(trial.witness["blind"])
    if not answers:
        return "ERROR", "the stage has no checks"
    for answer in answers:
        if answer.outcome.status != "PASS":
            if cause := _expected_cause(trial, stage):
                return "XFAIL", cause
            return "FAIL", _sentence(answer)
    return "PASS", f"{len(answers)} checks"


def _expected_cause(trial: Trial, stage: Stage) -> str | None:
    """Why kernels without the stage's series cannot pass, None where that is not why.

    The stage's control with the stock kernel says what must break and for what reason; a trial
    of such kernels that breaks anything else, or for another reason, is a FAIL.
    """
    if trial.setting.outgoing.patches or trial.setting.incoming.patches:
        return None
    for control in stage.controls:
        if control.stock and (verdict := judge_control(trial, control, stage)).good:
            return f"{control.what}: {verdict.why}"
    return None


def judge_control(trial: Trial, control: Control, stage: Stage) -> ControlVerdict:
    """A run that must fail: in what it breaks, for its reason, and in nothing else."""
    answers = _ask(trial, (*stage.checks, control.reason, *control.holds))
    status, why = _control_status(trial, control, stage, answers)
    return ControlVerdict(
        trial=trial.setting.name, control=control.name, status=status, why=why, answers=answers
    )


def _control_status(
    trial: Trial, control: Control, stage: Stage, answers: tuple[Answer, ...]
) -> tuple[ControlStatus, str]:
    if trial.setting.ended == "interrupted":
        return "ERROR", trial.setting.ended_detail
    if "blind" in trial.witness:
        return "ERROR", str(trial.witness["blind"])
    by_name = {answer.check: answer for answer in answers}
    for name in sorted(control.breaks):
        if by_name[name].outcome.status == "PASS":
            return "PASSED", f"{name} did not notice"
    required = {control.reason.name, *(check.name for check in control.holds)}
    if control.may_break is not None:
        spared = control.breaks | control.may_break
        required |= {check.name for check in stage.checks} - spared
    for answer in answers:
        if answer.check in required and answer.outcome.status != "PASS":
            return "WRONG REASON", _sentence(answer)
    return "FAILED AS IT MUST", by_name[control.reason.name].outcome.seen


def _ask(trial: Trial, checks: tuple[Check, ...]) -> tuple[Answer, ...]:
    return tuple(
        Answer(check=check.name, question=check.question, outcome=ask(check, trial))
        for check in checks
        if trial.setting.chain > 1 or not check.of_chain
    )


def _sentence(answer: Answer) -> str:
    outcome = answer.outcome
    return f"{answer.check}: expected {outcome.expected}; seen {outcome.seen} ({outcome.evidence})"

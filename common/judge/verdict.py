# SPDX-License-Identifier: GPL-2.0-only
"""From record to verdict: a pure function, so that a stored run can be judged again."""

from __future__ import annotations

import re
from typing import Literal, TypeVar

from common.checks.model import Check, Control, Outcome
from common.checks.promise import SUITE
from common.errors import Exit
from common.judge.causes import in_order
from common.judge.expected import Expected, expected_of
from common.record.console import is_refusal
from common.record.cpus.last_look import death, sentence, standing
from common.record.dialogue import Stored
from common.record.evidence import Run, Trial
from common.record.qemu.fault import OWN
from common.stage.chain import ask
from common.stage.declaration import Stage

TrialStatus = Literal[
    "PASS", "XPASS", "XFAIL", "REFUSED", "DISTURBED", "FAIL", "ERROR", "CRASHED", "TIMEOUT"
]
ControlStatus = Literal["FAILED AS EXPECTED", "DISTURBED", "PASSED", "WRONG REASON", "ERROR"]
RunStatus = Literal[
    "PASS",
    "XPASS",
    "XFAIL",
    "SKIP",
    "REFUSED",
    "DISTURBED",
    "FAIL",
    "BROKEN",
    "OTHER CODE",
    "ERROR",
    "CRASHED",
    "TIMEOUT",
]
"""Roughly from the best to the worst. XFAIL: kernels that do not promise all of it failed where
expected, for the expected cause; XPASS: they passed there. SKIP: only from `gate`, for a stage that
it could not run. OTHER CODE: only from `judge`, for a run that was not made with this checkout's
workload, stage, harness and series."""

EXIT_OF: dict[RunStatus, Exit] = {
    "PASS": Exit.PASS,
    "XPASS": Exit.PASS,
    "XFAIL": Exit.PASS,
    "SKIP": Exit.SKIP,
    "REFUSED": Exit.FAIL,
    "DISTURBED": Exit.HARNESS,
    "FAIL": Exit.FAIL,
    "BROKEN": Exit.FAIL,
    "OTHER CODE": Exit.OTHER_CODE,
    "ERROR": Exit.HARNESS,
    "CRASHED": Exit.CRASHED,
    "TIMEOUT": Exit.TIMEOUT,
}


class Answer(Stored):
    """A check of a trial and its outcome."""

    check: str
    question: str
    outcome: Outcome
    whose: str = SUITE.whose
    """Whose promise it is; see common/checks/promise.py."""
    cause: str | None = None
    """Of an XFAIL: its cause, as it was seen."""


class TrialVerdict(Stored):
    """The verdict on a main run, or on a repeat of it."""

    trial: str
    status: TrialStatus
    why: str
    answers: tuple[Answer, ...]
    disturbed: tuple[str, ...] = ()
    """Why each attempt before this one shows nothing."""
    away: str | None = None
    """The longest time, in words, for which the host did not run the machine, if it was long."""


class ControlVerdict(Stored):
    """A control: good when it failed for its own reason, and only in the checks it targets."""

    trial: str
    control: str
    status: ControlStatus
    why: str
    answers: tuple[Answer, ...]
    disturbed: tuple[str, ...] = ()
    """Why each attempt before this one shows nothing."""

    @property
    def good(self) -> bool:
        """True when the control broke what it must break."""
        return self.status == "FAILED AS EXPECTED"


class Verdict(Stored):
    """The verdict on a run. `why` is one sentence: the first thing that is wrong."""

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
    """The verdict on a run, from its record alone.

    Of the attempts at a trial the first that was not disturbed counts: nothing but a disturbed
    one may be tried again.
    """
    attempts: dict[str, list[Trial]] = {}
    for trial in run.trials:
        attempts.setdefault(trial.setting.plan, []).append(trial)
    of_mains = [all_ for all_ in attempts.values() if all_[0].setting.control is None]
    of_controls = [all_ for all_ in attempts.values() if all_[0].setting.control is not None]
    mains = tuple(_no_chance(all_, [judge_trial(t, stage) for t in all_]) for all_ in of_mains)
    controls = tuple(
        _decisive([judge_control(t, stage.control(t.setting.control or ""), stage) for t in all_])
        for all_ in of_controls
    )
    status, why = _sum_up(mains, controls)
    return Verdict(stage=stage.number, status=status, why=why, trials=mains, controls=controls)


V = TypeVar("V", TrialVerdict, ControlVerdict)


def _decisive(verdicts: list[V]) -> V:
    """The first attempt that is conclusive, else the last; and why those before it are not."""
    number = next(
        (n for n, verdict in enumerate(verdicts) if verdict.status != "DISTURBED"),
        len(verdicts) - 1,
    )
    before = tuple(verdict.why for verdict in verdicts[:number])
    return verdicts[number].model_copy(update={"disturbed": before})


# A fault of QEMU's strikes one trial in sixty at most.
_CHANCES = 2


def _no_chance(trials: list[Trial], verdicts: list[TrialVerdict]) -> TrialVerdict:
    """The decisive one; of attempts that all ended in what QEMU may do by chance, a failure."""
    found = _decisive(verdicts)
    struck = [
        verdict.why.startswith(_by_chance(trial))
        for trial, verdict in zip(trials, verdicts, strict=True)
    ]
    if found.status != "DISTURBED" or len(struck) <= _CHANCES or not all(struck):
        return found
    # No kernel can make QEMU fail its own assertion: that it did so often says nothing of one.
    if any(trial.qemu_fault and trial.qemu_fault.startswith(OWN) for trial in trials):
        return found
    why = f"in each of {len(struck)} attempts, which is no fault of QEMU's: {found.why}"
    return found.model_copy(update={"status": "FAIL", "why": why})


def _by_chance(trial: Trial) -> tuple[str, ...]:
    """How a verdict begins that gives what happened to QEMU."""
    found = (_fault_of_qemu(trial), _guest_stood(trial), _ran_away(trial))
    return tuple(said for said in found if said)


def disturbed(trial: Trial, stage: Stage) -> bool:
    """True where the trial is inconclusive because of the host or of QEMU."""
    name = trial.setting.control
    verdict = (
        judge_control(trial, stage.control(name), stage) if name else judge_trial(trial, stage)
    )
    return verdict.status == "DISTURBED"


def _sum_up(
    mains: tuple[TrialVerdict, ...], controls: tuple[ControlVerdict, ...]
) -> tuple[RunStatus, str]:
    """The run's status, and the first thing that is wrong, in one sentence."""
    if not mains and not controls:
        return "ERROR", "nothing was run"
    for main in mains:
        if main.status not in ("PASS", "XPASS", "XFAIL"):
            return main.status, f"{main.trial}: {main.why}"
    expected = [main for main in mains if main.status == "XFAIL"]
    better = [main for main in mains if main.status == "XPASS"]
    for control in controls:
        if control.status == "ERROR":
            return "ERROR", f"{control.trial}: {control.why}"
        # If the main run fails already, nobody knows which failures are the control's.
        if control.good or (expected and control.status == "WRONG REASON"):
            continue
        if control.status != "DISTURBED":
            return "BROKEN", f"{control.trial} {control.status}: {control.why}"
    for control in controls:
        if control.status == "DISTURBED":
            return "DISTURBED", f"{control.trial}: {control.why}"
    if expected:
        return "XFAIL", f"{expected[0].trial}: {expected[0].why}"
    if better:
        return "XPASS", f"{better[0].trial}: {better[0].why}"
    failed = "no controls run"
    if controls:
        failed = f"{len(controls)} control{'s' * (len(controls) > 1)} failed as expected"
    if not mains:
        return "PASS", f"{failed}; the stage itself was not run, so none of its claims is shown"
    return "PASS", f"{len(mains)}/{len(mains)} passed, {failed}"


def judge_trial(trial: Trial, stage: Stage) -> TrialVerdict:
    """The verdict on a main run: every check must pass, and there must be checks."""
    expected = expected_of(trial, stage)
    answers = tuple(_promised(a, stage, expected) for a in _ask(trial, stage.checks))
    status, why = _trial_status(trial, answers, expected)
    return TrialVerdict(
        trial=trial.setting.name,
        status=status,
        why=why,
        answers=answers,
        away=trial.host.stood_still() if trial.host else None,
    )


def _promised(answer: Answer, stage: Stage, expected: Expected | None) -> Answer:
    """The answer with whose promise it is, and with what was expected of kernels without it."""
    found = {"whose": stage.promised_by(answer.check).whose}
    if expected is None:
        return answer.model_copy(update=found)
    outcome = expected.of(answer.check, answer.outcome)
    cause = expected.cause_of(answer.check).seen if outcome.status == "XFAIL" else None
    return answer.model_copy(update={**found, "outcome": outcome, "cause": cause})


def _trial_status(
    trial: Trial, answers: tuple[Answer, ...], expected: Expected | None
) -> tuple[TrialStatus, str]:
    """The trial's status, and why, in one sentence."""
    ended, detail = trial.setting.ended, trial.setting.ended_detail
    if refusals := trial.console.refusals or _refusals_in_ram(trial):
        # LUO panics deliberately then (luo_restore_fail()); that is not a crash to explain
        return "REFUSED", f"the incoming kernel refuses the handover: {refusals[0]}"
    if cause := _disturbance(trial):
        return "DISTURBED", cause
    if any(splat.fatal for splat in trial.console.splats):
        return "CRASHED", in_order(trial, detail)
    if ended in ("crashed", "rebooted") and (why := _died_unheard(trial)):
        return "CRASHED", why
    if ended == "crashed":
        return "ERROR", f"trial.json reports a crash that nothing shows: {detail}"
    if ended == "timeout":
        return "TIMEOUT", in_order(trial, _with_place(trial, detail), of_time=True)
    if ended in ("gone", "interrupted"):
        return "ERROR", detail
    if trial.witness.blind:
        return "ERROR", trial.witness.blind
    if not answers:
        return "ERROR", "the stage has no checks"
    fallen = [answer for answer in answers if answer.outcome.fell]
    if fallen and (kept := _kept(trial)):
        return "DISTURBED", f"{kept}; {_sentence(fallen[0])}"
    # Failures that the host has no part in come first.
    for answer in sorted(fallen, key=lambda answer: answer.outcome.status == "DISTURBED"):
        if answer.outcome.status == "DISTURBED":
            return "DISTURBED", _sentence(answer)
        late = (
            f"; expected until {expected.gap.until} only" if expected and expected.expired else ""
        )
        return "FAIL", in_order(trial, _sentence(answer)) + late
    return _as_expected(answers, expected)


def _as_expected(answers: tuple[Answer, ...], expected: Expected | None) -> tuple[TrialStatus, str]:
    """(status, why) where nothing failed that should not have: PASS, XFAIL or XPASS."""
    named = {
        status: [answer.check for answer in answers if answer.outcome.status == status]
        for status in ("XFAIL", "XPASS", "N/A")
    }
    unasked = f", {len(named['N/A'])} N/A" if named["N/A"] else ""
    passed = f"; XPASS: {', '.join(named['XPASS'])}" if named["XPASS"] else ""
    if expected and named["XFAIL"]:
        return "XFAIL", f"{expected.why}; {len(named['XFAIL'])} XFAIL{unasked}{passed}"
    if expected and passed:
        return (
            "XPASS",
            f"what {expected.gap.lacks.whose} promises is not promised here, but holds{passed}",
        )
    return "PASS", f"{sum(answer.outcome.held for answer in answers)} checks{unasked}"


def _refusals_in_ram(trial: Trial) -> tuple[str, ...]:
    """The refusals that a kernel which died before its console had printed to its log."""
    texts = trial.last_look.texts if trial.last_look else ()
    return tuple(text for text in texts if is_refusal(text))


def _died_unheard(trial: Trial) -> str | None:
    """How a kernel died, from RAM and CPUs, where its console does not show it; else None."""
    if trial.last_look is None:
        return None
    return sentence(trial.last_look, trial.setting, trial.console)


def _with_place(trial: Trial, detail: str) -> str:
    """The detail of a timeout, with where the CPUs were."""
    look = trial.last_look
    if look is None:
        return detail
    if death(look) and (why := _died_unheard(trial)):
        return f"{detail}; {why}"
    stood = standing(look)
    return f"{detail}; {stood}" if stood else detail


def _disturbance(trial: Trial) -> str | None:
    """Why the trial's end is neither the kernel's fault nor the workload's; None where it may be.

    A workload that gave up waiting while the host stalled the machine did so because of the host.
    """
    setting, host = trial.setting, trial.host
    fatal = next((splat for splat in trial.console.splats if splat.fatal), None)
    if fatal and fatal.of_time and host and (still := host.stood_still()):
        return f"{fatal.text}; {still}"
    fault = _fault_of_qemu(trial)
    if setting.ended in ("timeout", "gone") and fault:
        return fault
    if setting.ended == "bail" or any(side.end == "bail" for side in trial.sides):
        if fault and not trial.console.kexecs:
            return fault
        said = _bailed(trial)
        if "deadline_passed" in said and host and (still := host.stood_still()):
            return f"the workload gave up waiting; {still}"
    return None


def _fault_of_qemu(trial: Trial) -> str | None:
    """What QEMU did, in words. With KVM the host's CPUs run machine and guest, and of QEMU's faults
    only an end of its own is left."""
    fault = trial.qemu_fault
    if fault and (trial.setting.host.accelerator == "tcg" or fault.startswith(OWN)):
        return fault
    return None


def _bailed(trial: Trial) -> str:
    """With which words a workload gave up, as far as they are there."""
    return " ".join([trial.setting.ended_detail, *(side.bail or "" for side in trial.sides)])


# common/workload/vm/still.c: it is run, not blocked.
_KEPT = re.compile(r"R on CPU \d+, then R on CPU \d+")


def _ran_away(trial: Trial) -> str | None:
    """A CPU that took ticks faster than time passes: docs/oddities.md."""
    return trial.console.ran_away if trial.setting.host.accelerator == "tcg" else None


def _guest_stood(trial: Trial) -> str | None:
    """It was run all the while and came to no step, as TCG does to nested SVM: docs/oddities.md."""
    said = [side.facts.get("still.thread", "") for side in trial.sides]
    if trial.setting.host.accelerator != "tcg" or not any(map(_KEPT.fullmatch, said)):
        return None
    return "the guest stood still although KVM ran it (facts still.*)"


def _kept(trial: Trial) -> str | None:
    """What QEMU did to a machine that went on: an RCU stall warning, an NMI, may get it going."""
    if trial.setting.host.accelerator != "tcg":
        return None
    return trial.lost_interrupt or _guest_stood(trial) or _ran_away(trial)


def judge_control(trial: Trial, control: Control, stage: Stage) -> ControlVerdict:
    """The verdict on a control: it must fail in what it breaks, for its reason, nowhere else."""
    answers = _ask(trial, (*stage.checks, control.reason, *control.holds))
    status, why = _control_status(trial, control, stage, answers)
    return ControlVerdict(
        trial=trial.setting.name, control=control.name, status=status, why=why, answers=answers
    )


def _control_status(
    trial: Trial, control: Control, stage: Stage, answers: tuple[Answer, ...]
) -> tuple[ControlStatus, str]:
    """The control's status, and why: what did not fail as it must, or what showed its reason."""
    if trial.setting.ended == "interrupted":
        return "ERROR", trial.setting.ended_detail
    if cause := _disturbance(trial):
        return "DISTURBED", cause
    if trial.witness.blind:
        return "ERROR", trial.witness.blind
    if trial.last_look and trial.last_look.triple_fault and (why := _died_unheard(trial)):
        return "WRONG REASON", why  # no control may end in a triple fault
    by_name = {answer.check: answer for answer in answers}
    spared = None if control.may_break is None else control.breaks | control.may_break
    kept, ended = _kept(trial), by_name.get("both_sides_ended_well")
    early = ended is not None and ended.outcome.status == "FAIL" and not kept
    if ended and early and spared is not None and ended.check not in spared:
        return "WRONG REASON", in_order(trial, _sentence(ended))  # nothing could be noticed
    checks = {check.name: check for check in stage.checks}
    for name in sorted(control.breaks):
        if by_name[name].outcome.status != "PASS":
            continue
        if checks[name].barely(trial):
            return "DISTURBED", f"but for the host it had failed: {_sentence(by_name[name])}"
        return "PASSED", f"{name} did not notice"
    required = {control.reason.name, *(check.name for check in control.holds)}
    if spared is not None:
        required |= {check.name for check in stage.checks} - spared
    wrong = [a for a in answers if a.check in required and not a.outcome.held]
    # The control, not the host, must have broken the checks in `breaks`. That is certain unless
    # its reason depends on time.
    broken = [by_name[name] for name in sorted(control.breaks)] if control.reason.timed else []
    doubtful = [a for a in (*wrong, *broken) if a.outcome.status == "DISTURBED"]
    if wrong and kept:
        return "DISTURBED", f"{kept}; {_sentence(wrong[0])}"
    for answer in wrong:
        if answer.outcome.status != "DISTURBED":
            return "WRONG REASON", in_order(trial, _sentence(answer))
    for answer in doubtful:
        return "DISTURBED", _sentence(answer)
    return "FAILED AS EXPECTED", by_name[control.reason.name].outcome.seen


def _ask(trial: Trial, checks: tuple[Check, ...]) -> tuple[Answer, ...]:
    return tuple(
        Answer(check=check.name, question=check.question, outcome=_answer(check, trial))
        for check in checks
        if trial.setting.chain > 1 or not check.of_chain
    )


def _answer(check: Check, trial: Trial) -> Outcome:
    """The check's outcome; a failed time limit in a machine that the host stalled is DISTURBED.

    A side without output is not a matter of time: see `_disturbance` for one that gave up waiting.
    """
    found = ask(check, trial)
    if not check.timed or found.status != "FAIL" or trial.host is None or check.but(trial):
        return found
    still = trial.host.stood_still()
    if still is None:
        return found
    return found.model_copy(update={"status": "DISTURBED", "seen": f"{found.seen}; {still}"})


def _sentence(answer: Answer) -> str:
    outcome = answer.outcome
    return f"{answer.check}: expected {outcome.expected}; seen {outcome.seen} ({outcome.evidence})"

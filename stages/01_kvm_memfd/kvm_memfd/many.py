# SPDX-License-Identifier: GPL-2.0-only
"""Checks of many sessions, and of processes that use LUO while reboot() serialises."""

from __future__ import annotations

from common.checks.live_update import INCOMING, no_data, outcome
from common.checks.model import Check, Claim, Outcome
from common.record.evidence import Trial
from kvm_memfd.files import words

_WHAT = ("sessions", "files", "folios")
RACERS = 3


def _many(trial: Trial) -> Outcome:
    """Every one of many came, each with its own content."""
    side = trial.side(INCOMING)
    said, faults = [], []
    for what in _WHAT:
        seen = words(side.facts.get(f"many.{what}", "")) if side else {}
        if not {"right", "of", "first-wrong"} <= seen.keys() or seen["of"] == "0":
            return no_data(f"incoming fact many.{what}", expected="all of them")
        said.append(f"{seen['of']} {what}")
        if seen["right"] != seen["of"]:
            first = f"number {seen['first-wrong']} is the first that is not"
            faults.append(f"{seen['right']} of {seen['of']} {what} came back right, {first}")
    return outcome(
        not faults,
        expected=f"{', '.join(said)}, each with its own content",
        seen="; ".join(faults) or "as expected",
        evidence="incoming facts many.*",
    )


def _race(trial: Trial) -> Outcome:
    """What arrives of a racer is what it was about to do, or had done, when all was serialised."""
    side = trial.side(INCOMING)
    faults, said = [], []
    expected = "what each racer was about to do at the kexec has happened or not, and nothing else"
    if side and side.bail and "/dev/liveupdate" in side.bail:
        return outcome(
            False,
            expected=expected,
            seen=f"what was serialised while they went on cannot be read: {side.bail}",
            evidence="incoming # bail",
        )
    for racer in range(RACERS):
        seen = words(side.facts.get(f"race.{racer}", "")) if side else {}
        try:
            fault = _race_fault(seen)
        except (KeyError, ValueError):
            return no_data(f"incoming fact race.{racer}", expected="the last step, or that before")
        said.append(f"round {seen['round']}, {_step(seen)}")
        if fault:
            faults.append(f"racer {racer}: {fault}")
    return outcome(
        not faults,
        expected=expected,
        seen="; ".join(faults) or "; ".join(said),
        evidence="incoming facts race.*",
    )


def _race_fault(seen: dict[str, str]) -> str | None:
    sessions, files, right, file, most = (
        int(seen[key]) for key in ("sessions", "files", "right", "file", "of")
    )
    here = f"it was in round {seen['round']}, about to {_step(seen)}, and there "
    if sessions > 1:
        return here + f"are {sessions} sessions of it"
    if sessions and seen["found"] != seen["round"]:
        return here + f"is its session of round {seen['found']}"
    if files != right:
        return here + "is a file of it with other content"
    # (sessions, files) as it was before the step, and as it is after it
    possible = {
        "create": {(0, 0), (1, 0)},
        "preserve": {(1, file - 1), (1, file)},
        "end": {(1, most), (0, 0)},
    }[seen["step"]]
    if (sessions, files) not in possible:
        return here + f"are {sessions} sessions and {files} files of it"
    return None


def _step(seen: dict[str, str]) -> str:
    file = f" file {seen['file']} of {seen['of']}" if seen["step"] == "preserve" else ""
    return seen["step"] + file


CLAIM = Claim(
    "lists of any length arrive whole",
    "Lists of any length are handed over complete, as of one point in time.",
    (
        Check("many_came", "Did all of the many sessions, files and folios arrive?", _many),
        Check(
            "serialised_at_once",
            "Is concurrent activity carried over as of one point in time?",
            _race,
        ),
    ),
)

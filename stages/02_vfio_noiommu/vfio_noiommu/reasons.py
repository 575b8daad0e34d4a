# SPDX-License-Identifier: GPL-2.0-only
"""What shows that a control of stage 2 failed for its own reason: pure functions of a Trial."""

from __future__ import annotations

import re

from common.checks.live_update import INCOMING, OUTGOING, facts_are, no_data, outcome
from common.checks.model import Check, Outcome
from common.dma.evidence import DmaEvidence
from common.dma.frames import Window
from common.guest.checks import both
from common.record.evidence import Trial

RULE_UNFINISHED = "kexec_with_a_session_unfinished"


def went_to_sleep(trial: Trial) -> Outcome:
    found = trial.seen(DmaEvidence).trace.power
    return outcome(
        any("->D3" in entry.text and entry.ms > 0 for entry in found),
        expected="D0 to D3 in the incoming kernel",
        seen=f"{found[0].text} at {found[0].ms:+.1f} ms" if found else "never",
        evidence="qemu-trace.log",
    )


def pages_moved(trial: Trial) -> Outcome:
    side = trial.side(INCOMING)
    moved = side.number("pfn.moved") if side else None
    if moved is None:
        return no_data("fact pfn.moved", expected="more than 0")
    return outcome(
        moved > 0,
        expected="pages of the memfd have moved",
        seen=f"{moved} moved",
        evidence="fact pfn.moved",
    )


def reset_by_hand(trial: Trial) -> Outcome:
    resets = trial.seen(DmaEvidence).trace.resets
    found = [one for one in resets if "ctrl_sw_reset" in one.text and one.ms > 0]
    return outcome(
        bool(found),
        expected="a reset by the device's own register in the incoming kernel",
        seen=f"{found[0].text} at {found[0].ms:+.1f} ms" if found else "none",
        evidence="qemu-trace.log",
    )


def other_goes_on(trial: Trial) -> Outcome:
    other = trial.seen(DmaEvidence).other
    if other is None:
        return no_data("other-landed.bin", expected="frames after the kexec")
    return outcome(
        other.after.landed > 0,
        expected="frames of the second device after the kexec",
        seen=f"{other.after.landed} of {other.after.sent}",
        evidence="other-landed.bin",
    )


def ring_ran_empty(trial: Trial) -> Outcome:
    sides = both(trial)
    numbers = [side.number("guest.frames") for side in sides] if sides else [None]
    count = sides[0].number("ring.count") if sides else None
    if None in numbers or count is None:
        return no_data("facts ring.count, guest.frames", expected="a ring that ran empty")
    before, after = (number or 0 for number in numbers)
    return outcome(
        count <= after <= before + count,
        expected=f"{count} to {before + count} frames: one round, no more",
        seen=f"{before} before the kexec, {after} in the end",
        evidence="facts ring.count, guest.frames",
    )


def command_written(trial: Trial) -> Outcome:
    """Of all rules this one alone is broken, on both sides."""
    bad = [[r.name for r in side.results if not r.ok] for side in trial.sides]
    return outcome(
        bad == [["write_command"]] * 2,
        expected="write_command not ok, on both sides",
        seen="; ".join(", ".join(names) or "all ok" for names in bad) or "nobody spoke",
        evidence="KTAP of both sides",
    )


def was_missing(trial: Trial) -> Outcome:
    wanted = {"retrieve.device": "-19", "retrieve.device_again": "-19"}
    return facts_are(INCOMING, wanted)(trial)


def after_close(*, runs: bool) -> Check:
    """What the device does when the session is closed that holds it, and it is not taken over."""
    expected = ("some" if runs else "no") + " frames in the second after that"

    def ask(trial: Trial) -> Outcome:
        side = trial.side(INCOMING)
        frames = side.number("left.frames") if side else None
        if frames is None:
            return no_data("fact left.frames", expected=expected)
        return outcome(
            (frames > 0) is runs,
            expected=expected,
            seen=f"{frames} frames",
            evidence="incoming fact left.frames",
        )

    return Check("after_close", "What does the device do when its session is closed?", ask)


def after_finish(trial: Trial) -> Window | None:
    """What the second device did after FINISH; None when that is not known."""
    other = trial.seen(DmaEvidence).other
    return other.finished if other else None


def into_freed_pages(trial: Trial) -> Outcome:
    """FINISH freed the second device's memory, which nobody had retrieved, and it wrote on."""
    side, finished = trial.side(INCOMING), after_finish(trial)
    ret = side.facts.get("finish") if side else None
    if finished is None:
        return no_data("other-landed.bin, fact t.finished", expected="frames after FINISH")
    return outcome(
        ret == "0" and finished.fresh > 0,
        expected="FINISH=0, then frames of the second device in the pages that it freed",
        seen=f"FINISH={ret}, then {finished.fresh} of {finished.sent} frames",
        evidence="incoming fact finish; other-landed.bin",
    )


def left_unfinished(trial: Trial) -> Outcome:
    """The incoming side's last word is from before a kexec that had to be refused."""
    side = trial.side(INCOMING)
    names = [result.name for result in side.results] if side else []
    return outcome(
        bool(names) and names[-1] != "open_after_close" and RULE_UNFINISHED not in names,
        expected=f"no word after the attempt of {RULE_UNFINISHED}",
        seen=f"{names[-1]} was the last" if names else "nothing",
        evidence="incoming KTAP",
    )


def port_unbound(trial: Trial) -> Outcome:
    """The rule of the port alone does not hold."""
    side = trial.side(OUTGOING)
    bad = [result.name for result in side.results if not result.ok] if side else []
    return outcome(
        bad == ["unbind_port"],
        expected="unbind_port not ok",
        seen=", ".join(bad) or "all ok",
        evidence="outgoing KTAP",
    )


_TAKEN_MEANWHILE = re.compile(r": 0, preserve 0, [1-9][0-9]* events were to come, 0 at the end\Z")


def port_lost_its_driver(trial: Trial) -> Outcome:
    """The port's driver was gone after the device below had been preserved, and before it was let
    go."""
    side = trial.side(OUTGOING)
    seen = side.facts.get("races.wrong") if side else None
    return outcome(
        bool(seen and _TAKEN_MEANWHILE.search(seen)),
        expected="unbound while the device below is preserved",
        seen=seen or "never",
        evidence="outgoing fact races.wrong",
    )


def other_stopped(trial: Trial) -> Outcome:
    finished = after_finish(trial)
    if finished is None:
        return no_data("other-landed.bin, t.finished or t.taker_died", expected="no frame")
    return outcome(
        finished.sent > 0 and finished.fresh == 0,
        expected="no frame of the second device any more",
        seen=f"{finished.fresh} of {finished.sent}",
        evidence="other-landed.bin",
    )

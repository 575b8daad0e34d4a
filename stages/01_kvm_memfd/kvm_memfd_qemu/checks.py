# SPDX-License-Identifier: GPL-2.0-only
"""The claims of stage 1 with QEMU, and the questions to the record. Pure functions of a Trial."""

from __future__ import annotations

from common.checks import live_update as checks
from common.checks.live_update import INCOMING, OUTGOING, no_data, outcome
from common.checks.model import Check, Claim, Outcome
from common.guest import checks as guest_checks
from common.guest.linux_checks import (
    NOT_BOOTED_AGAIN,
    WORK_GOES_ON,
    qemu_said,
    ran_between,
    same_qemu,
)
from common.record.evidence import Trial
from kvm_memfd.checks import host_saw

# What QEMU's own state may take, beside RAM: 330 kB were seen, of which 128 KiB are firmware.
MAX_STATE = 2 << 20


_ran_on = ran_between("t.preserve", "await.save", "from preserve to save")


def _ran_on_at_each_try(trial: Trial) -> Outcome:
    """With how often PRESERVE_FD was called: no page may be in use where it has to be moved.

    A memfd that was not to be preserved says nothing of it.
    """
    side, found = trial.side(OUTGOING), _ran_on(trial)
    tries = (side.number("preserve.tries") if side else None) or 1
    again = f"; PRESERVE_FD called {tries} times" if tries > 1 else ""
    return found.model_copy(update={"seen": f"{found.seen}{again}"})


def _moved(trial: Trial) -> Outcome:
    """All that went from one QEMU to the other is its state file, and RAM is not in it."""
    sides = [trial.side(name) for name in (OUTGOING, INCOMING)]
    saved, found = (side.number("state.bytes") if side else None for side in sides)
    expected = f"the same on both sides, at most {MAX_STATE}"
    if saved is None or found is None:
        return no_data("fact state.bytes on both sides", expected=expected)
    return outcome(
        0 < saved <= MAX_STATE and saved == found,
        expected=f"{expected} bytes",
        seen=f"{saved} bytes saved, {found} found",
        evidence="fact state.bytes",
    )


CLAIMS = (
    checks.LIVE_UPDATE,
    Claim(
        "memory preserved while the guest runs",
        "The guest's memory was preserved while it ran, and every byte of it is unchanged.",
        (
            Check(
                "guest_ran_on",
                "Did the guest run during preserve and load?",
                _ran_on_at_each_try,
                timed=True,
            ),
            guest_checks.RETRIEVED,
            Check("ram_size", "Is the memfd the same size as before?", guest_checks.ram_size),
            Check("ram_equal", "Is every page identical?", guest_checks.ram_equal),
            Check("host_saw_ram", "Did the host see the same bytes from outside?", host_saw),
        ),
    ),
    Claim(
        "RAM stays, only QEMU's state moves",
        "RAM was not copied: its pages stayed in place, and only QEMU's state moved.",
        (
            Check("same_pages", "Are all page frame numbers unchanged?", guest_checks.same_pages),
            Check("bytes_moved", "Is RAM absent from what QEMU saved?", _moved),
        ),
    ),
    Claim(
        "the host's QEMU saves and loads",
        "An unmodified QEMU, as the host's package has it, saved the guest and loaded it.",
        (
            Check("same_qemu", "Are both the host's own QEMU?", same_qemu),
            Check(
                "qemu_saved",
                "Did the outgoing QEMU save the guest?",
                qemu_said(OUTGOING, "stop", "migration.completed"),
            ),
            Check(
                "qemu_loaded",
                "Did the incoming QEMU load and run the guest?",
                qemu_said(INCOMING, "migration.completed", "resume"),
            ),
            checks.FINISHED,
        ),
    ),
    NOT_BOOTED_AGAIN,
    WORK_GOES_ON,
)

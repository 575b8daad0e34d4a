# SPDX-License-Identifier: GPL-2.0-only
"""Stage 1 on arm64: what differs there, and what does not apply."""

from __future__ import annotations

from dataclasses import replace

from common.checks import live_update as checks
from common.checks.controls import reason
from common.checks.live_update import INCOMING, facts_are
from common.checks.model import Check
from common.stage.declaration import Elsewhere
from kvm_memfd.controls import CONTROLS, not_zero

_NAMED = {control.name: control for control in CONTROLS}
_NO_REGISTER = "0x603000000013bfff"

REGISTERS_TAKEN = Check(
    "registers_taken",
    "Did KVM accept every register that it names, and give it back as it was?",
    facts_are(
        INCOMING,
        {
            "restore.registers_refused": "0",
            "restore.registers_unlike": "0",
            "restore.vgic_unlike": "0",
        },
    ),
)

ARM64 = Elsewhere(
    not_there={
        "slow-clock": "a kernel reads the counter's rate from CNTFRQ_EL0, which no kernel"
        " parameter overrides; so no control sets a clock wrong there",
        "timer-halved": "the timer counts with the counter; no register sets its rate",
    },
    checks={"state_taken": REGISTERS_TAKEN},
    controls={
        "register-corrupted": replace(
            _NAMED["register-corrupted"], what="one bit of x22 is flipped in the restored registers"
        ),
        "msr-corrupted": replace(
            _NAMED["msr-corrupted"],
            what="one bit of a system register (TPIDR_EL0) is flipped in the restored state",
        ),
        "state-left-out": replace(
            _NAMED["state-left-out"],
            what="a system register (TPIDRRO_EL0) is not restored",
            may_break=frozenset({"guest_content"}),
            reason=reason(not_zero(INCOMING, "restore.registers_unlike")),
        ),
        "msr-unknown": replace(
            _NAMED["msr-unknown"],
            what="one register of the restored state (TPIDR_EL0) is given a nonexistent number",
            reason=reason(
                checks.fact_is(INCOMING, "restore.registers_refused", f"1 {_NO_REGISTER}")
            ),
        ),
        # The guest stood still for longer than the pause that the VMM tells of, and there is little
        # time in which the host could have seen it run.
        "paused-early": replace(
            _NAMED["paused-early"],
            may_break=frozenset({"guest_gap", "guest_clock", "host_saw_guest_run"}),
        ),
        "timer-dropped": replace(
            _NAMED["timer-dropped"], what="the virtual timer is masked in the restored state"
        ),
        "tsc-frozen": replace(
            _NAMED["tsc-frozen"], what="the guest's counter is set back to its value at the pause"
        ),
    },
)

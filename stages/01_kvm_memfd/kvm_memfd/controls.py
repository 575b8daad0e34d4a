# SPDX-License-Identifier: GPL-2.0-only
"""Stage 1's controls: runs that must fail, each for the intended reason."""

from __future__ import annotations

from collections.abc import Callable

from common.checks import live_update as checks
from common.checks.controls import reason, was_reset
from common.checks.live_update import INCOMING, OUTGOING, facts_are, no_data, outcome, same_fact
from common.checks.model import Check, Control, Outcome
from common.guest.checks import both, ticks_gained, timer_rate
from common.record.evidence import Trial
from kvm_memfd.checks import CLAIMS

_HOUR_MS = 3_600_000
_HELD_MS = 1200

LIVE = frozenset(check.name for check in checks.LIVE_UPDATE.checks)
ALL = frozenset(check.name for claim in CLAIMS for check in claim.checks)
# What cannot be asked any more when the incoming side has no guest to resume.
WITHOUT_GUEST = (ALL - LIVE - {"guest_ran_on", "outgoing_rules"}) | {"dialogue_complete"}


def not_zero(side: str, key: str) -> Callable[[Trial], Outcome]:
    def ask(trial: Trial) -> Outcome:
        spoken = trial.side(side)
        seen = spoken.facts.get(key) if spoken else None
        if seen is None:
            return no_data(f"{side} fact {key}", expected="not 0")
        return outcome(
            seen != "0", expected="not 0", seen=f"{key}={seen}", evidence=f"{side} fact {key}"
        )

    return ask


def _second_cpu_late(trial: Trial) -> Outcome:
    side = trial.side(INCOMING)
    slept, asked = (
        side.number(key) if side else None for key in ("cpu.1.timer_us", "cpu.timer_asked_us")
    )
    if slept is None or not asked:
        return no_data("facts cpu.1.timer_us, cpu.timer_asked_us", expected="twice as long")
    return outcome(
        slept >= 2 * asked,
        expected=f"at least twice the {asked} us that were asked for",
        seen=f"{slept} us",
        evidence="incoming facts cpu.*",
    )


def _an_hour_ahead(trial: Trial) -> Outcome:
    leap = checks.wall_clock_leap(trial)
    if leap is None:
        return no_data("fact realtime.ns on both sides", expected="an hour ahead")
    return outcome(
        abs(leap - _HOUR_MS) < _HOUR_MS / 100,
        expected="an hour ahead",
        seen=f"{leap:+.0f} ms",
        evidence="facts realtime.*",
    )


def has_fact(side: str, key: str) -> Callable[[Trial], Outcome]:
    def ask(trial: Trial) -> Outcome:
        spoken = trial.side(side)
        seen = spoken.facts.get(key) if spoken else None
        if seen is None:
            return no_data(f"{side} fact {key}")
        return outcome(True, expected=key, seen=f"{key}={seen}", evidence=f"{side} fact {key}")

    return ask


def _counter_moved(trial: Trial) -> Outcome:
    sides = both(trial)
    paused = sides[0].number("guest.0.counter") if sides else None
    loaded = sides[1].number("guest.0.counter_at_load") if sides else None
    if paused is None or loaded is None:
        return no_data("facts guest.0.counter, guest.0.counter_at_load")
    return outcome(
        loaded == paused + 1,
        expected=f"{paused} + 1 at load",
        seen=f"{paused} at pause, {loaded} at load",
        evidence="facts guest.0.counter, guest.0.counter_at_load",
    )


def _timer_stands(trial: Trial) -> Outcome:
    """No tick after the resume but the one that was pending."""
    ticks = ticks_gained(trial, 0)
    if ticks is None:
        return no_data("fact guest.0.ticks on both sides")
    return outcome(
        ticks[1] <= 1,
        expected="at most 1 tick after the resume",
        seen=f"{ticks[1]} ticks after the resume",
        evidence="fact guest.0.ticks",
    )


def _timer_halved(trial: Trial) -> Outcome:
    rate = timer_rate(trial, 0)
    if rate is None:
        return no_data("fact guest.0.timer_rate on both sides")
    return outcome(
        0.4 < rate < 0.6,
        expected="half as fast as before",
        seen=f"{rate:.2f} times as fast",
        evidence="fact guest.0.timer_rate",
    )


def _gap_short(trial: Trial) -> Outcome:
    """The longest gap that the guest saw is a small part of the time it did not run."""
    sides = both(trial)
    gap = sides[1].number("guest.0.resume.gap_tsc") if sides else None
    paused = sides[0].number("t.paused") if sides else None
    resumed = sides[1].number("t.resume") if sides else None
    if gap is None or paused is None or resumed is None:
        return no_data("facts guest.0.resume.gap_tsc, t.paused, t.resume")
    return outcome(
        gap < (resumed - paused) // 2,
        expected=f"a gap of less than half of {resumed - paused} ticks",
        seen=f"the guest's longest gap is {gap} of {resumed - paused} ticks",
        evidence="facts guest.0.resume.gap_tsc, t.paused, t.resume",
    )


def _held(trial: Trial) -> Outcome:
    """The guest stood still for as long as its VMM had stopped it, and not much longer."""
    side = trial.side(INCOMING)
    gap = side.number("guest.0.resume.next_gap_tsc") if side else None
    khz = side.number("tsc.khz") if side else None
    if gap is None or not khz:
        return no_data("facts guest.0.resume.next_gap_tsc, tsc.khz")
    return outcome(
        _HELD_MS <= gap / khz <= 2 * _HELD_MS,
        expected=f"a second gap of {_HELD_MS} ms",
        seen=f"the guest's second gap is {gap / khz:.0f} ms",
        evidence="fact guest.0.resume.next_gap_tsc",
    )


def _memory_given_back(trial: Trial) -> Outcome:
    """After the holder's death the memory that was preserved is available again, to 2 %."""
    side = trial.side(OUTGOING)
    keys = ("before_preserve", "preserved", "after_kill")
    before, preserved, after = (
        side.number(f"mem.available_kb.{key}") if side else None for key in keys
    )
    guest_kb = int(trial.setting.options["guest_memory"]) << 10
    if before is None or preserved is None or after is None:
        return no_data("facts mem.available_kb.*", expected="given back")
    return outcome(
        after - preserved > 0.98 * guest_kb,
        expected=f"at least 98 % of the guest's {guest_kb} kB more than while preserved",
        seen=f"{preserved} kB while preserved, {after} kB after the kill",
        evidence="outgoing facts mem.available_kb.*",
    )


def ended(how: str) -> Callable[[Trial], Outcome]:
    def ask(trial: Trial) -> Outcome:
        setting = trial.setting
        return outcome(
            setting.ended == how,
            expected=f"the trial ends as {how}",
            seen=f"{setting.ended} {setting.ended_detail}".strip(),
            evidence="trial.json",
        )

    return ask


def panicked(trial: Trial) -> Outcome:
    seen = [splat.text for splat in trial.console.splats if splat.fatal]
    return outcome(
        any("sysrq triggered crash" in text for text in seen),
        expected="Kernel panic - not syncing: sysrq triggered crash",
        seen=seen[0] if seen else "no panic",
        evidence="console.log",
    )


def switched_off(word: str) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    """The command line with NAME=on replaced by NAME=off."""

    def change(words: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{word}=off" if w == f"{word}=on" else w for w in words)

    return change


def _counted_one_too_many(trial: Trial) -> Outcome:
    counts = [handover.count for handover in trial.console.handovers]
    wanted = list(range(1, trial.setting.chain + 2))
    return outcome(
        counts == wanted,
        expected=f"KHO counts {', '.join(map(str, wanted))}",
        seen=f"KHO counts {', '.join(map(str, counts))} where {trial.setting.chain} were asked for",
        evidence="console.log, KHO",
    )


def _stood_still(trial: Trial) -> Outcome:
    """The guest was loaded in the second kernel, and left it at the same step."""
    loaded = trial.sides[1].number("guest.0.counter_at_load") if len(trial.sides) > 1 else None
    left = trial.sides[2].number("guest.0.counter") if len(trial.sides) > 2 else None
    watched = trial.sides[2].number("preserve.guest_steps") if len(trial.sides) > 2 else None
    if loaded is None or left is None or watched is None:
        return no_data("facts guest.0.counter_at_load, guest.0.counter, preserve.guest_steps")
    return outcome(
        watched == 0,
        expected="no step while the second kernel preserves it",
        seen=f"{watched} steps while the second kernel preserves it",
        evidence="facts of the second kernel",
    )


# What has no guest in it is the same with every workload.
TAINTED = Control(
    name="tainted",
    what="the incoming kernel is tainted after it has booted",
    breaks=frozenset({"not_tainted"}),
    reason=reason(checks.fact_is(INCOMING, "kernel.taint_at_end", "64")),
)
SLOW_CLOCK = Control(
    name="slow-clock",
    what="both kernels are told that the TSC runs at 6 GHz",
    breaks=frozenset({"clock_rate"}),
    # Its ms are not the guest's.
    may_break=frozenset({"guest_gap", "guest_clock", "wall_clock"}),
    cmdline=lambda words: (*words, "tsc_early_khz=6000000"),
    reason=reason(checks.fact_is(INCOMING, "tsc.khz", "6000000")),
)
WALL_CLOCK_AHEAD = Control(
    name="wall-clock-ahead",
    what="the incoming kernel's wall clock is set an hour ahead",
    breaks=frozenset({"wall_clock"}),
    reason=reason(_an_hour_ahead),
)
CPU_TIMER_LATE = Control(
    name="cpu-timer-late",
    what="on all CPUs but the first, the workload sleeps twice as long as asked",
    breaks=frozenset({"cpu_timers"}),
    reason=reason(_second_cpu_late),
)
FIRMWARE_REBOOT = Control(
    name="firmware-reboot",
    what="a reboot through the firmware instead of the kexec",
    breaks=LIVE - {"no_splat", "one_qemu"},
    may_break=None,
    reason=reason(was_reset),
    holds=(checks.ONE_QEMU,),
)
POWER_OFF = Control(
    name="power-off",
    what="power off instead of the kexec",
    breaks=frozenset({"one_qemu", "both_sides_ended_well", "kho_exec_from"}),
    may_break=None,
    reason=reason(ended("gone")),
)
SAME_KERNEL = Control(
    name="same-kernel",
    what="the outgoing kernel on both sides",
    breaks=frozenset({"other_kernel", "build_ids", "host_saw_kernels"}),
    same_kernel=True,
    reason=reason(same_fact("kernel.build_id")),
)
PANIC = Control(
    name="panic",
    what="the outgoing kernel panics instead of the kexec",
    breaks=frozenset({"no_splat", "both_sides_ended_well"}),
    may_break=None,
    reason=reason(panicked),
)

CONTROLS = (
    Control(
        name="not-preserved",
        what="the RAM memfd is not added to the session",
        breaks=frozenset({"memfds_retrieved", "ram_size", "ram_huge", "host_saw_guest_run"}),
        may_break=WITHOUT_GUEST | {"guest_ran_on"},
        reason=reason(checks.fact_is(INCOMING, "retrieve.ram", "-2")),
    ),
    Control(
        name="byte-flipped",
        what="one byte of RAM is flipped before the comparison",
        breaks=frozenset({"ram_equal", "host_saw_ram", "guest_content"}),
        reason=reason(checks.fact_is(INCOMING, "ram.pages_different", "1")),
    ),
    Control(
        name="register-corrupted",
        what="one bit of r15 is flipped in the restored registers",
        breaks=frozenset({"registers"}),
        reason=reason(not_zero(INCOMING, "guest.0.errors.gpr")),
    ),
    Control(
        name="vector-corrupted",
        what="one bit of a vector register is flipped in the restored state",
        breaks=frozenset({"vector_state"}),
        reason=reason(not_zero(INCOMING, "guest.0.errors.vector")),
    ),
    Control(
        name="msr-corrupted",
        what="one bit of an MSR (STAR) is flipped in the restored state",
        breaks=frozenset({"guest_content"}),
        reason=reason(not_zero(INCOMING, "guest.0.errors.msr")),
    ),
    Control(
        name="msr-unknown",
        what="one MSR of the restored state (STAR) is given a nonexistent index",
        breaks=frozenset({"state_taken"}),
        may_break=frozenset({"guest_content"}),
        reason=reason(checks.fact_is(INCOMING, "restore.msrs_refused", "1 0xbadc0de")),
    ),
    Control(
        name="state-left-out",
        what="the interrupt controllers of the VM (PICs, IOAPIC) are not restored",
        breaks=frozenset({"state_taken"}),
        reason=reason(not_zero(INCOMING, "restore.state_unlike")),
    ),
    Control(
        name="counter-corrupted",
        what="the counter is one too high, in the register and in memory",
        breaks=frozenset({"counter"}),
        reason=reason(_counter_moved),
    ),
    Control(
        name="timer-dropped",
        what="the timer is masked in the restored LAPIC",
        breaks=frozenset({"guest_ticks"}),
        may_break=frozenset({"guest_content"}),
        reason=reason(_timer_stands),
    ),
    Control(
        name="timer-halved",
        what="the timer of the restored LAPIC counts at half its rate",
        breaks=frozenset({"guest_ticks"}),
        reason=reason(_timer_halved),
    ),
    Control(
        name="vcpu-held",
        what="the restored guest is stopped for 1.2 s once more",
        breaks=frozenset({"guest_never_still"}),
        reason=reason(_held, timed=True),
    ),
    Control(
        name="tsc-frozen",
        what="the guest's TSC is set back to its value at the pause",
        breaks=frozenset({"guest_gap", "guest_clock"}),
        may_break=frozenset({"counter"}),
        reason=reason(_gap_short, timed=True),
    ),
    Control(
        name="paused-early",
        what="the guest is paused before the memfds are preserved",
        breaks=frozenset({"guest_ran_on"}),
        may_break=frozenset({"guest_clock"}),
        reason=reason(checks.facts_are(OUTGOING, {"paused_early": "yes", "load.guest_steps": "0"})),
    ),
    TAINTED,
    SLOW_CLOCK,
    WALL_CLOCK_AHEAD,
    CPU_TIMER_LATE,
    Control(
        name="pages-copied",
        what="RAM is copied into a new memfd and the guest runs on the copy",
        breaks=frozenset({"same_pages", "host_saw_guest"}),
        # What stands in the old frames by then may be anybody's.
        may_break=frozenset({"host_saw_guest_run"}),
        reason=reason(not_zero(INCOMING, "pfn.moved")),
    ),
    FIRMWARE_REBOOT,
    POWER_OFF,
    SAME_KERNEL,
    Control(
        name="one-cpu",
        what="the incoming kernel is told maxcpus=1",
        cmdline=lambda words: (*words, "stage.incoming=maxcpus=1"),
        breaks=frozenset({"all_cpus"}),
        # The other one stays in the outgoing kernel, as long as its page tables last.
        may_break=frozenset({"host_saw_kernels"}),
        reason=reason(checks.fact_is(INCOMING, "cpus", "1")),
    ),
    Control(
        name="session-closed",
        what="the session is closed before the kexec; the guest keeps running unharmed",
        breaks=frozenset({"memfds_retrieved"}),
        may_break=WITHOUT_GUEST,
        reason=reason(checks.fact_is(INCOMING, "retrieve.session", "-2")),
        holds=(
            Check(
                "guest_unharmed",
                "Did the guest keep running without errors after the session was closed?",
                facts_are(OUTGOING, {"closed.guest_errors": "0"}),
            ),
            Check(
                "guest_swept", "Did it verify all its memory?", not_zero(OUTGOING, "closed.sweeps")
            ),
        ),
    ),
    Control(
        name="holder-killed",
        what="the workload is killed before the kexec; nothing may leak",
        breaks=frozenset({"memfds_retrieved"}),
        may_break=WITHOUT_GUEST,
        reason=reason(checks.fact_is(INCOMING, "retrieve.session", "-2")),
        holds=(Check("given_back", "Was the preserved memory given back?", _memory_given_back),),
    ),
    Control(
        name="session-unfinished",
        what="nobody finishes the session in the incoming kernel",
        breaks=frozenset({"session_finished", "all_restored"}),
        may_break=frozenset({"guest_content"}),
        reason=reason(has_fact(INCOMING, "guest.0.sweeps_after_resume")),
    ),
    Control(
        name="wrong-nonce",
        what="the state memfd claims to be from another run",
        breaks=frozenset({"registers", "vector_state", "counter", "guest_content"}),
        may_break=WITHOUT_GUEST,
        reason=reason(has_fact(INCOMING, "retrieve.state_refused")),
    ),
    Control(
        name="liveupdate-off",
        what="both kernels with liveupdate=off",
        breaks=frozenset({"luo_number", "outgoing_rules", "incoming_rules", "memfds_retrieved"}),
        may_break=None,
        cmdline=switched_off("liveupdate"),
        reason=reason(facts_are(OUTGOING, {"liveupdate.device": "no"})),
        holds=(
            Check("named", "Is the cause named?", checks.bailed_with(OUTGOING, "/dev/liveupdate")),
        ),
    ),
    Control(
        name="kho-off",
        what="both kernels with kho=off",
        breaks=frozenset({"kho_exec_from", "luo_number", "memfds_retrieved", "same_memory_map"}),
        may_break=None,
        cmdline=switched_off("kho"),
        reason=reason(facts_are(OUTGOING, {"liveupdate.device": "no"})),
        holds=(
            Check("named", "Is the cause named?", checks.bailed_with(OUTGOING, "/dev/liveupdate")),
        ),
    ),
    PANIC,
)

CHAIN_CONTROLS = (
    Control(
        name="uncounted-update",
        what="an unannounced kexec precedes the first update",
        breaks=frozenset({"kho_exec_from", "luo_number", "chain_counts", "console_order"}),
        # The first kernel that speaks has come by kexec then: it shows nobody KHO's tree.
        may_break=frozenset(
            {"abort_gives_back", "refusal_takes_nothing", "kill_gives_back", "all_restored"}
        ),
        of_chain=True,
        uncounted=1,
        reason=reason(_counted_one_too_many, of_chain=True),
    ),
    Control(
        name="guest-asleep",
        what="the second kernel does not let the guest run before the next update",
        breaks=frozenset({"guest_ran_on", "chain_alive"}),
        may_break=frozenset(
            {
                "guest_gap",
                "guest_clock",
                "guest_ticks",
                "counter",
                "guest_content",
                "host_saw_guest_run",
            }
        ),
        of_chain=True,
        reason=reason(_stood_still, of_chain=True),
    ),
)

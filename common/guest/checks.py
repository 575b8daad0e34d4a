# SPDX-License-Identifier: GPL-2.0-only
"""Questions about a KVM guest that went through a kexec, for every stage that runs one.

Pure functions of a Trial, on the facts of common/workload/vm/report.c.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from common.arch.known import ARCHITECTURES
from common.checks.live_update import INCOMING, OUTGOING, disturbed, facts_are, no_data, outcome
from common.checks.model import Check, Outcome
from common.record.dialogue import Side
from common.record.evidence import Trial

_RATE_PART, _AGREE, _GROUP = 0.2, 0.05, 3
_CLOCK_MS = 2.0
"""0.2 ms was seen at most, unless one of QEMU's CPUs had to wait."""
_WAITS_MS = 1000.0  # a vCPU, for its CPU in the machine, besides
_STILL_MS = 500.0
"""300 ms was seen at most, on a loaded host."""
RANGES = 64  # digests of RAM ranges that each side prints


def _vcpus(trial: Trial) -> range:
    return range(int(trial.setting.options["vcpus"]))


def each_vcpu(ask: Callable[[Trial, int], Outcome]) -> Callable[[Trial], Outcome]:
    """The first vCPU's answer that is not PASS, else the last one's."""

    def ask_all(trial: Trial) -> Outcome:
        answers = [ask(trial, vcpu) for vcpu in _vcpus(trial)]
        return next((answer for answer in answers if answer.status != "PASS"), answers[-1])

    return ask_all


def both(trial: Trial) -> tuple[Side, Side] | None:
    """(outgoing, incoming) side; None when one has no output."""
    before, after = trial.side(OUTGOING), trial.side(INCOMING)
    return (before, after) if before and after else None


def ram_size(trial: Trial) -> Outcome:
    side = trial.side(INCOMING)
    seen = side.facts.get("ram.size") if side else None
    wanted = str(int(trial.setting.options["guest_memory"]) << 20)
    if seen is None:
        return no_data("incoming fact ram.size", expected=wanted)
    return outcome(seen == wanted, expected=wanted, seen=seen, evidence="incoming fact ram.size")


def ram_huge(trial: Trial) -> Outcome:
    """The kernel counts as many large pages of the memory's, when it is there, as when it was
    made."""
    sides = both(trial)
    seen = [side.facts.get("ram.huge_kb") if side else None for side in sides or (None, None)]
    if None in seen:
        return no_data("facts ram.huge_kb", expected="as many large pages")
    return outcome(
        seen[0] == seen[1],
        expected=f"ShmemHugePages grows by {seen[0]} kB",
        seen=f"by {seen[1]} kB",
        evidence="facts ram.huge_kb",
    )


def ram_equal(trial: Trial) -> Outcome:
    """Every page's digest equal, as the workload found; 64 range digests compared here."""
    sides = both(trial)
    if sides is None:
        return no_data("one side has no output", expected="equal digests")
    before, after = sides
    keys = ["ram.digest", *(f"ram.range.{n}" for n in range(RANGES))]
    missing = [key for key in keys if key not in before.facts or key not in after.facts]
    if missing or "ram.pages_different" not in after.facts:
        return no_data(f"fact {(missing or ['ram.pages_different'])[0]}", expected="equal digests")
    differ = [key for key in keys if before.facts[key] != after.facts[key]]
    different = after.facts["ram.pages_different"]
    where = after.facts.get("ram.first_different", ", ".join(differ))
    same = different == "0" and not differ
    return outcome(
        same,
        expected=f"digest {before.facts['ram.digest']}, 0 pages different",
        seen=f"digest {after.facts['ram.digest']}, {different} pages different"
        + ("" if same else f", first: {where}"),
        evidence=f"facts ram.digest, ram.range.0-{RANGES - 1}",
    )


def extents(side: Side) -> list[tuple[int, int, int]] | None:
    """(page, pfn, count) of each run of pages, None when the list is not whole."""
    number = side.number("pfn.extents")
    if number is None:
        return None
    try:
        texts = [side.facts[f"pfn.extent.{n}"] for n in range(number)]
        return [(int(a), int(b, 0), int(c)) for a, b, c in (text.split(":") for text in texts)]
    except (KeyError, ValueError):
        return None


def same_pages(trial: Trial) -> Outcome:
    """The page frame numbers, extent by extent; every page of the guest must be in them."""
    sides = both(trial)
    if sides is None:
        return no_data("one side has no output", expected="the same page frames")
    before, after = (extents(side) for side in sides)
    pages = sides[0].number("guest.pages")
    moved = sides[1].facts.get("pfn.moved")
    if before is None or after is None or pages is None or moved is None:
        return no_data("facts pfn.extent.*, pfn.moved", expected="the same page frames")
    covered = sum(count for _, _, count in after)
    unmapped = any(pfn == 0 for _, pfn, _ in before)
    where = sides[1].facts.get("pfn.first_moved", "")
    return outcome(
        before == after and covered == pages and moved == "0" and not unmapped,
        expected=f"{pages} pages in the {len(before)} extents they were in",
        seen=f"{covered} pages in {len(after)} extents, {moved} moved {where}".rstrip(),
        evidence="facts pfn.extent.*",
    )


def registers(kind: str) -> Callable[[Trial], Outcome]:
    """What was captured was loaded, and the guest itself found its registers right."""

    def ask(trial: Trial, vcpu: int) -> Outcome:
        sides = both(trial)
        names = (f"guest.{vcpu}.{kind}", f"guest.{vcpu}.{kind}_at_load")
        errors = f"guest.{vcpu}.errors.{kind}"
        if sides is None or names[0] not in sides[0].facts or errors not in sides[1].facts:
            return no_data(f"facts {names[0]}, {errors}")
        captured, loaded = sides[0].facts[names[0]], sides[1].facts.get(names[1], "nothing")
        found = sides[1].facts[errors]
        return outcome(
            captured == loaded and found == "0",
            expected=f"{captured[:18]}… loaded, 0 mismatches seen by the guest",
            seen=f"{loaded[:18]}… loaded, {found} mismatches seen by the guest",
            evidence=f"facts {names[0]}, {names[1]}, {errors}",
        )

    return each_vcpu(ask)


def counter(trial: Trial, vcpu: int) -> Outcome:
    """Pause, load and the guest's own log agree on the counter to the step.

    The guest logs the counter at the two readings of the clock around its longest gap; it may
    have been paused on either side of the increment between them.
    """
    sides = both(trial)
    if sides is None:
        return no_data("one side has no output", expected="a counter")
    paused = sides[0].number(f"guest.{vcpu}.counter")
    keys = ("counter_at_load", "resume.counter_before", "resume.counter_after")
    loaded, before, after = (sides[1].number(f"guest.{vcpu}.{key}") for key in keys)
    if paused is None or loaded is None or before is None or after is None:
        return no_data(f"facts guest.{vcpu}.counter, .resume.counter_*", expected="a counter")
    answer = outcome(
        loaded == paused and before <= paused <= after <= before + 1,
        expected=f"{paused} at pause and load, no gap, no repeat",
        seen=f"{loaded} at load; guest's log: {before}, then {after}",
        evidence=f"facts guest.{vcpu}.counter, .counter_at_load, .resume.counter_*",
    )
    # The longest gap that it saw may be another one, in which the host did not run it.
    begin, end = (sides[1].number(f"guest.{vcpu}.resume.gap_{edge}") for edge in ("start", "end"))
    stood, resumed = sides[0].number("t.paused"), sides[1].number("t.resume")
    still = trial.host.stood_still() if trial.host else None
    if answer.status == "PASS" or loaded != paused or still is None:
        return answer
    if begin is None or end is None or stood is None or resumed is None:
        return answer
    if begin <= resumed and end >= stood:
        return answer
    return disturbed(answer, still)


def no_errors(*kinds: str) -> Callable[[Trial, int], Outcome]:
    """The guest verified every page after the resume and after FINISH, and found no such fault.

    Nor any before the kexec: a guest that is broken then shows nothing.
    """

    def ask(trial: Trial, vcpu: int) -> Outcome:
        sides = both(trial)
        if sides is None:
            return no_data("one side has no output", expected="no errors")
        before, after = (_errors(side, vcpu, kinds) for side in sides)
        sweeps = [
            sides[1].number(f"guest.{vcpu}.sweeps_after_{what}") for what in ("resume", "finish")
        ]
        if before is None or after is None or sweeps[0] is None or sweeps[1] is None:
            return no_data(f"facts guest.{vcpu}.errors.*, .sweeps_*", expected="no errors")
        first = next(
            (s.facts[k] for s in sides if (k := f"guest.{vcpu}.first_error") in s.facts), ""
        )
        answer = outcome(
            {*before.values(), *after.values()} == {"0"} and sweeps[0] >= 1 and sweeps[1] >= 1,
            expected="no errors before the kexec, nor in at least one sweep after resume and one"
            " after FINISH",
            seen=f"before: {_counts(before)}; since: {_counts(after)};"
            f" sweeps {sweeps[0]} and {sweeps[1]} {first}".rstrip(),
            evidence=f"facts guest.{vcpu}.errors.*",
        )
        # The machine's timers are QEMU's: if the host did not run that, ticks are late.
        late = {before.pop("timer", "0"), after.pop("timer", "0")} != {"0"}
        still = trial.host.stood_still() if trial.host else None
        if late and still and {*before.values(), *after.values()} == {"0"}:
            return disturbed(answer, still)
        return answer

    return ask


def _errors(side: Side, vcpu: int, kinds: Sequence[str]) -> dict[str, str] | None:
    """Kind -> how many the guest has counted by then; None where the side lacks one of them."""
    found = {kind: side.facts.get(f"guest.{vcpu}.errors.{kind}") for kind in kinds}
    return {kind: n for kind, n in found.items() if n is not None} if all(found.values()) else None


def _counts(errors: Mapping[str, str]) -> str:
    return ", ".join(f"{kind} {number}" for kind, number in errors.items())


guest_content = no_errors("memory", "counter", "msr", "timer")


def ticks_gained(trial: Trial, vcpu: int) -> tuple[int, int] | None:
    """Timer interrupts of the vCPU before the pause, and since the resume; None without data."""
    sides = both(trial)
    before, after = (
        (side.number(f"guest.{vcpu}.ticks") for side in sides) if sides else (None, None)
    )
    return None if before is None or after is None else (before, after - before)


def timer_rate(trial: Trial, vcpu: int) -> float | None:
    """How fast the timer counts after the resume, in terms of before; None without data.

    A vCPU that waits for its CPU spoils some measurements, each in its own way: on each side those
    count that most others agree with.
    """
    found = []
    for name in (OUTGOING, INCOMING):
        side = trial.side(name)
        words = side.facts.get(f"guest.{vcpu}.timer_rate", "") if side else ""
        try:
            pairs = [
                (int(count), int(time))
                for count, _, time in (word.partition(":") for word in words.split())
            ]
            found.append(_agreed([count / time for count, time in pairs if time]))
        except ValueError:
            return None
    return found[1] / found[0] if found[0] and found[1] else None


def _agreed(rates: Sequence[float]) -> float:
    """The median of the largest group whose members differ by a few percent; 0 where all groups
    are so small that their members may agree by chance."""
    largest: list[float] = []
    for middle in rates:
        group = [rate for rate in rates if abs(rate - middle) <= middle * _AGREE]
        largest = max(largest, group, key=len)
    return statistics.median(largest) if len(largest) >= _GROUP else 0.0


def guest_ticks(trial: Trial, vcpu: int) -> Outcome:
    """At least a twentieth of the 100 ticks/s that the timer was programmed to, at the old rate.

    On a loaded host ticks are late and merge (15/s were seen); one more tick alone may be
    an interrupt that was pending when the state was captured.
    """
    ticks, side = ticks_gained(trial, vcpu), trial.side(INCOMING)
    rate = timer_rate(trial, vcpu)
    if ticks is None or side is None or rate is None:
        facts = f"facts guest.{vcpu}.ticks, guest.{vcpu}.timer_rate on both sides"
        return no_data(facts, expected="ticks continue")
    resumed, finished, khz = (side.number(key) for key in ("t.resume", "t.finished", "tsc.khz"))
    seconds = (finished - resumed) / (khz * 1000) if resumed and finished and khz else 0.0
    needed = max(3, round(seconds * 100 / 20))
    return outcome(
        ticks[0] > 0 and ticks[1] >= needed and abs(rate - 1) <= _RATE_PART,
        expected=f"at least {needed} timer interrupts in {seconds:.1f} s after the resume, by a"
        " timer that counts as fast as before",
        seen=f"{ticks[0]} before the pause, {ticks[1]} after the resume; {rate:.2f} times as fast",
        evidence=f"facts guest.{vcpu}.ticks, guest.{vcpu}.timer_rate",
    )


def guest_gap(trial: Trial, vcpu: int) -> Outcome:
    """The gap that the guest saw is the one in which it was paused, and longer than any before."""
    sides = both(trial)
    if sides is None:
        return no_data("one side has no output", expected="a gap")
    gap = sides[1].number(f"guest.{vcpu}.resume.gap_tsc")
    usual = sides[0].number(f"guest.{vcpu}.gap_max_tsc")
    paused, resumed = sides[0].number("t.paused"), sides[1].number("t.resume")
    khz = sides[1].number("tsc.khz")
    if gap is None or usual is None or paused is None or resumed is None or not khz:
        return no_data(f"facts guest.{vcpu}.resume.gap_tsc, t.paused, t.resume", expected="a gap")
    ms, outside = gap / khz, (resumed - paused) / khz
    counter = ARCHITECTURES[trial.setting.architecture].counter
    # What the vCPU's thread waits for a CPU at either end depends on the host's load.
    most = outside * 1.25 + 200
    return outcome(
        gap > usual and outside <= ms <= most,
        expected=f"{outside:.0f} ms (VMM: paused to resume), at most {most:.0f} ms",
        seen=f"{ms:.0f} ms (guest's {counter}); longest before: {usual / khz:.1f} ms",
        evidence=f"facts guest.{vcpu}.resume.gap_tsc, t.paused, t.resume",
    )


def _gap_elsewhere(trial: Trial) -> bool:
    """A gap that is off by more than anybody can have kept either end of it waiting."""
    sides = both(trial)
    if sides is None:
        return False
    paused, resumed = sides[0].number("t.paused"), sides[1].number("t.resume")
    gaps = [sides[1].number(f"guest.{vcpu}.resume.gap_tsc") for vcpu in _vcpus(trial)]
    khz = sides[1].number("tsc.khz")
    if paused is None or resumed is None or not khz:
        return False
    slack = _away_ms(trial) + _WAITS_MS
    return any(
        gap is not None and abs(gap - (resumed - paused)) / khz > slack + 0.25 * gap / khz
        for gap in gaps
    )


def _held_by_itself(trial: Trial) -> bool:
    """A vCPU that stood still for longer than it may by more than the machine was not run for."""
    sides, host = both(trial), trial.host
    if sides is None or host is None:
        return False
    khz = sides[1].number("tsc.khz")
    gaps = [sides[1].number(f"guest.{vcpu}.resume.next_gap_tsc") for vcpu in _vcpus(trial)]
    kept = host.machine_kept_ms()
    return any(gap is not None and khz and gap / khz > _STILL_MS + kept for gap in gaps)


def guest_never_still(trial: Trial, vcpu: int) -> Outcome:
    """But for the gap of the live update, the vCPU never stood still for long, on neither side."""
    sides = both(trial)
    keys = (f"guest.{vcpu}.resume.next_gap_tsc", f"guest.{vcpu}.resume.next_gap_start")
    if sides is None:
        return no_data("one side has no output", expected="a gap")
    gap, start = (sides[1].number(key) for key in keys)
    khz, resumed = sides[1].number("tsc.khz"), sides[1].number("t.resume")
    if gap is None or start is None or resumed is None or not khz:
        return no_data(f"facts {', '.join(keys)}, t.resume", expected="no long gap but one")
    after = (start - resumed) / khz
    return outcome(
        0 < gap <= _STILL_MS * khz,
        expected=f"no other gap of more than {_STILL_MS:.0f} ms",
        seen=f"the longest: {gap / khz:.1f} ms, from {abs(after):.0f} ms"
        f" {'after' if after > 0 else 'before'} the resume on" + _still(sides[1]),
        evidence=f"facts {', '.join(keys)}, still.*",
    )


def _still(side: Side) -> str:
    """What the workload saw of a vCPU that stood still: common/workload/vm/still.c."""
    said = {key: side.facts.get(f"still.{key}") for key in ("thread", "kvm", "interrupts")}
    return "".join(f"; {key}: {text}" for key, text in said.items() if text)


def _clock_off(trial: Trial, vcpu: int) -> float | None:
    """By how many ms a vCPU's clock is ahead of the offset that was captured; None without data."""
    sides = both(trial)
    if sides is None:
        return None
    captured = sides[0].number(f"guest.{vcpu}.counter_offset")
    after, khz = sides[1].number(f"guest.{vcpu}.clock_offset"), sides[1].number("tsc.khz")
    return (after - captured) / khz if captured is not None and after is not None and khz else None


def _away_ms(trial: Trial) -> float:
    """For how long at most the host did not run somebody who has a part in the trial."""
    found = trial.host.longest(trial.host.begin, trial.host.end) if trial.host else None
    return (found[2] - found[1]) / 1e6 if found else 0.0


def _clock_elsewhere(trial: Trial) -> bool:
    """A clock that is off by more than what the host can have kept a reading of it waiting."""
    away = _away_ms(trial)
    offs = [_clock_off(trial, vcpu) for vcpu in _vcpus(trial)]
    return any(off is not None and abs(off) > away + _WAITS_MS for off in offs)


def _waited_ms(trial: Trial, side: Side) -> float:
    """For how long one of QEMU's CPUs waited at most, from a side's first line on."""
    host = trial.host
    return host.longest_wait_ms(side.started, host.end, "CPU ") if host else 0.0


def guest_clock(trial: Trial, vcpu: int) -> Outcome:
    """The running guest's counter is ahead of the machine's by the offset that was captured, as the
    VMM sees it in the guest's memory.

    Where the TSC is unstable, KVM moves the offset of a vCPU that does not run: what is captured
    is behind what the guest last saw (arch/x86/kvm/x86.c: kvm_arch_vcpu_load), by no more than
    the time since. And it catches up by two clocks that it reads one after the other
    (kvm_guest_time_update): what a CPU of the machine is not run for in between is added, unless
    the clock is ahead by as much already.
    """
    sides = both(trial)
    keys = (f"guest.{vcpu}.counter_offset", f"guest.{vcpu}.clock_offset")
    if sides is None:
        return no_data("one side has no output", expected="a clock")
    before, captured = sides[0].number(keys[1]), sides[0].number(keys[0])
    off, khz = _clock_off(trial, vcpu), sides[1].number("tsc.khz")
    at, last = sides[0].number("t.captured"), sides[1].number(f"guest.{vcpu}.resume.gap_start")
    if captured is None or before is None or off is None or not khz or at is None or last is None:
        needed = (*keys, "t.captured", f"guest.{vcpu}.resume.gap_start")
        return no_data(f"facts {', '.join(needed)}", expected="a clock")
    lost = (before - captured) / khz
    # Its last reading, on the machine's counter by the offset that it had then.
    stood = (at - (last + captured - before)) / khz
    ahead = _CLOCK_MS + _waited_ms(trial, sides[1])
    return outcome(
        -_CLOCK_MS <= off <= ahead and -_CLOCK_MS <= lost <= stood + _CLOCK_MS,
        expected=f"the offset that was captured, at most {_CLOCK_MS:.0f} ms less and {ahead:.0f} ms"
        f" more, and at most {stood:.1f} ms lost when it was",
        seen=f"{off:+.3f} ms; {lost:.1f} ms were lost when it was captured",
        evidence=f"facts {keys[0]}, {keys[1]}, t.captured",
    )


_TAKEN = {
    "restore.msrs_refused": "0",
    "restore.state_unlike": "0",
    "guest.interrupts_lost": "0",
    "guest.interrupts_unended": "0",
}


def state_taken(trial: Trial) -> Outcome:
    """All state was there to be captured, was accepted, read back as it was, and each interrupt
    that was due came once.

    QEMU's TCG may deliver an interrupt once more that KVM injected into its guest
    (docs/findings/qemu-injects-twice.md): one such is not held against the kernel.
    """
    captured = facts_are(OUTGOING, {"capture.timers_still": "0"})(trial)
    if captured.status != "PASS":
        return captured
    left = facts_are(OUTGOING, {"capture.vcpus_interrupted": str(len(_vcpus(trial)))})(trial)
    if left.status == "FAIL":
        return disturbed(left, "a vCPU was being given an interrupt when it was paused")
    if left.status != "PASS":
        return left
    answer = facts_are(INCOMING, {**_TAKEN, "guest.interrupts_twice": "0"})(trial)
    side = trial.side(INCOMING)
    if (
        side is None
        or trial.setting.host.accelerator != "tcg"
        or side.facts.get("guest.interrupts_twice") != "1"
        or facts_are(INCOMING, _TAKEN)(trial).fell
    ):
        return answer
    return disturbed(answer, "QEMU's TCG can repeat an interrupt that KVM injected")


def _counts_otherwise(trial: Trial) -> bool:
    """A timer at another rate, which is no matter of the host's time."""
    rates = [timer_rate(trial, vcpu) for vcpu in _vcpus(trial)]
    return any(rate is not None and abs(rate - 1) > _RATE_PART for rate in rates)


# One object for all stages that ask them: a control of one stage shows them for the others.
RETRIEVED = Check(
    "memfds_retrieved",
    "Did LUO return the session and both memfds?",
    facts_are(INCOMING, {"retrieve.session": "0", "retrieve.state": "0", "retrieve.ram": "0"}),
)
REGISTERS = Check("registers", "Are the general-purpose registers intact?", registers("gpr"))
VECTOR_STATE = Check(
    "vector_state",
    "Are the vector and floating-point registers intact?",
    registers("vector"),
)
STATE_TAKEN = Check(
    "state_taken",
    "Did KVM accept all of the VM's state, give it back as it was, and deliver what was due?",
    state_taken,
)
COUNTER = Check(
    "counter", "Does the counter continue without a gap or a repeat?", each_vcpu(counter)
)
GUEST_TICKS = Check(
    "guest_ticks",
    "Do its timer interrupts continue, at the same rate?",
    each_vcpu(guest_ticks),
    timed=True,
    but=_counts_otherwise,
)
GUEST_CLOCK = Check(
    "guest_clock",
    "Is the guest's clock ahead of the machine's by as much as before?",
    each_vcpu(guest_clock),
    timed=True,
    but=_clock_elsewhere,
)
GUEST_GAP = Check(
    "guest_gap",
    "Does the time it missed match the blackout?",
    each_vcpu(guest_gap),
    timed=True,
    but=_gap_elsewhere,
)
GUEST_NEVER_STILL = Check(
    "guest_never_still",
    "Did it run without another such gap, before and after?",
    each_vcpu(guest_never_still),
    timed=True,
    but=_held_by_itself,
)

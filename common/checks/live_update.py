# SPDX-License-Identifier: GPL-2.0-only
"""Checks of every stage: did a live update happen at all, and did both sides complete?

Pure functions of a Trial. Helpers for the stages' own checks stand here too: a fact that
is missing is "NO DATA", which is never a pass.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable

from common.checks.all_cpus import ALL_CPUS, CPU_TIMERS
from common.checks.kernel_seen import HOST_SAW_KERNELS
from common.checks.model import Check, Claim, Outcome
from common.checks.outcomes import disturbed as disturbed
from common.checks.outcomes import no_data as no_data
from common.checks.outcomes import outcome as outcome
from common.record.clocks import Drift, drift, tsc_readings, wall_clock_lag_ns
from common.record.console import SPLAT
from common.record.cpus.last_look import LOG, has_console
from common.record.dialogue import Side
from common.record.evidence import Trial

OUTGOING, INCOMING = "outgoing", "incoming"
# What a workload says that it does -> the option that asked for it.
_OPTIONS = {"guest.memory_mib": "guest_memory", "guest.vcpus": "vcpus", "ring.count": "ring"}
# A kernel reads the wall clock from an RTC that counts whole seconds.
_WALL_CLOCK_MS = 2000
_FASTER, _CLOCK_SPAN_MS = 0.002, 500
# Late stamps of a loaded host were up to 122 ms in 350 sides.
_DRIFT_MS, _DRIFT_PART = 250, 0.02


def same_fact(key: str) -> Callable[[Trial], Outcome]:
    """The fact is the same on both sides of the kexec."""

    def ask(trial: Trial) -> Outcome:
        values = [_fact(trial.side(name), key) for name in (OUTGOING, INCOMING)]
        if None in values:
            return no_data(f"fact {key} on both sides")
        before, after = values
        return outcome(before == after, expected=before, seen=after, evidence=f"fact {key}")

    return ask


def fact_is(side: str, key: str, value: str) -> Callable[[Trial], Outcome]:
    """The side's fact has exactly this value."""

    def ask(trial: Trial) -> Outcome:
        seen = _fact(trial.side(side), key)
        expected = f"{key}={_with_errno(value)}"
        if seen is None:
            return no_data(f"{side} fact {key}", expected=expected)
        return outcome(
            seen == value,
            expected=expected,
            seen=f"{key}={_with_errno(seen)}",
            evidence=f"{side} fact {key}",
        )

    return ask


def facts_are(side: str, wanted: dict[str, str]) -> Callable[[Trial], Outcome]:
    """Every one of these facts has its value; the first that has not is named."""

    def ask(trial: Trial) -> Outcome:
        for key, value in wanted.items():
            answer = fact_is(side, key, value)(trial)
            if answer.status != "PASS":
                return answer
        said = ", ".join(f"{key}={value}" for key, value in wanted.items())
        return outcome(True, expected=said, seen=said, evidence=f"{side} facts")

    return ask


def results_ok(side: str, names: tuple[str, ...]) -> Callable[[Trial], Outcome]:
    """Each of the workload's KTAP results of this name is there once and ok."""

    def ask(trial: Trial) -> Outcome:
        spoken = trial.side(side)
        if spoken is None:
            return no_data(f"{side} side has no output", expected=f"{len(names)} results ok")
        given = {result.name: result.ok for result in spoken.results}
        missing = [name for name in names if name not in given]
        bad = [name for name in names if not given.get(name, True)]
        # What is not ok may be why the others were never tried.
        if missing and not bad:
            return no_data(f"{side} result {missing[0]}", expected=f"{len(names)} results ok")
        seen = f"not ok: {', '.join(bad)}" if bad else f"{len(names)} results ok"
        return outcome(
            not bad, expected=f"{len(names)} results ok", seen=seen, evidence=f"{side} KTAP"
        )

    return ask


def bailed_with(side: str, text: str) -> Callable[[Trial], Outcome]:
    """The side gave up and named `text` as its cause."""

    def ask(trial: Trial) -> Outcome:
        spoken = trial.side(side)
        if spoken is None or spoken.bail is None:
            return no_data(f"{side} did not bail", expected=f"bail naming {text}")
        return outcome(
            text in spoken.bail,
            expected=f"bail naming {text}",
            seen=spoken.bail,
            evidence=f"{side} # bail",
        )

    return ask


def _with_errno(value: str) -> str:
    """ "-2" as "-2 (ENOENT)"; anything else as it is."""
    name = errno.errorcode.get(-int(value)) if re.fullmatch(r"-\d+", value) else None
    return f"{value} ({name})" if name else value


def _fact(side: Side | None, key: str) -> str | None:
    return side.facts.get(key) if side else None


def _finished(trial: Trial) -> Outcome:
    ends = [f"{side.name or '?'}: {side.end}" for side in trial.sides]
    return outcome(
        [(side.name, side.end) for side in trial.sides]
        == [(OUTGOING, "kexec"), (INCOMING, "done")],
        expected="outgoing: kexec, incoming: done",
        seen=", ".join(ends) or "nobody spoke",
        evidence="dialogue.log",
    )


def _complete(trial: Trial) -> Outcome:
    """KTAP plans kept, no line lost or damaged, each side once and with this run's nonce."""
    names = [side.name for side in trial.sides]
    faults = [f"{name} {names.count(name)} times" for name in set(names) if names.count(name) > 1]
    for side in trial.sides:
        numbers = [result.number for result in side.results]
        if side.planned is None or numbers != list(range(1, side.planned + 1)):
            faults.append(f"{side.name}: planned {side.planned}, got {len(numbers)}")
        if side.garbage:
            faults.append(f"{side.name}: {side.garbage[0]!r}")
        if side.facts.get("nonce") != trial.setting.nonce:
            faults.append(f"{side.name}: nonce {side.facts.get('nonce')}")
        for key, option in _OPTIONS.items():
            asked, done = trial.setting.options.get(option), side.facts.get(key)
            if asked is not None and done not in (None, asked):
                faults.append(f"{side.name}: {key} {done}, and {asked} was asked for")
    if not trial.sides:
        return no_data("dialogue.log is empty", expected="plan kept, nonce of this run")
    return outcome(
        not faults,
        expected="each side once, plan kept, no stray line, nonce of this run",
        seen="; ".join(faults) or "as expected",
        evidence="dialogue.log",
    )


def _other_release(trial: Trial) -> Outcome:
    built = trial.setting.outgoing.release, trial.setting.incoming.release
    seen = tuple(_fact(trial.side(name), "kernel.release") for name in (OUTGOING, INCOMING))
    if None in seen:
        return no_data("fact kernel.release on both sides", expected=f"{built[0]}, then {built[1]}")
    kernels = trial.setting.outgoing, trial.setting.incoming
    # Who built an image may have called it as another; their build ids are asked for as well.
    alike = any(one.prebuilt for one in kernels) and kernels[0].build_id != kernels[1].build_id
    return outcome(
        seen == built and (built[0] != built[1] or alike),
        expected=f"{built[0]}, then {built[1]}",
        seen=f"{seen[0]}, then {seen[1]}",
        evidence="facts kernel.release",
    )


def _build_ids(trial: Trial) -> Outcome:
    before, after = (_fact(trial.side(name), "kernel.build_id") for name in (OUTGOING, INCOMING))
    built = trial.setting.outgoing.build_id, trial.setting.incoming.build_id
    if before is None or after is None:
        return no_data("fact kernel.build_id on both sides")
    return outcome(
        (before, after) == built and before != after,
        expected=f"{built[0][:12]}, then {built[1][:12]}",
        seen=f"{before[:12]}, then {after[:12]}",
        evidence="/sys/kernel/notes on both sides, against the built images",
    )


def _handover(trial: Trial) -> Outcome:
    count = trial.update
    expected = f"exec from: {trial.setting.outgoing.release} (count {count}), once"
    seen = [f"exec from: {h.release} (count {h.count})" for h in trial.console.handovers]
    if not seen:
        return no_data("no KHO line on the console", expected=expected)
    return outcome(
        [(h.release, h.count) for h in trial.console.handovers]
        == [(trial.setting.outgoing.release, count)],
        expected=expected,
        seen="; ".join(seen),
        evidence="console.log, KHO",
    )


def _same_scratch(trial: Trial) -> Outcome:
    """Where they are, that nothing is allocated there that cannot be moved out of the way, and
    that the incoming kernel's text is in one of them: anywhere else something may be that was
    handed over."""
    keys = ("kho.scratch", "kho.scratch_sizes", "kho.cma_blocks")
    seen = [[_fact(trial.side(name), key) for key in keys] for name in (OUTGOING, INCOMING)]
    if None in seen[0] or None in seen[1]:
        return no_data(f"facts {', '.join(keys)}", expected="the same scratch areas")
    (areas, sizes, blocks), (later, _, later_blocks) = seen
    kept = _fact(trial.side(INCOMING), "kho.list_reserved") == "1"
    text = _fact(trial.side(INCOMING), "kernel.text") or "unknown"
    within = _is_within(text, areas or "", sizes or "")
    return outcome(
        seen[0] == seen[1] and blocks != "0" and kept and within,
        expected=f"{areas}; {blocks} page blocks of movable memory only; their list is kept; the"
        " incoming kernel's text is in one of them",
        seen=f"{later}; {later_blocks} page blocks"
        + ("" if kept else "; their list is not kept")
        + f"; text at {text}",
        evidence="facts kho.scratch*, kho.cma_blocks (/proc/pagetypeinfo), kho.list_reserved,"
        " kernel.text",
    )


def _is_within(span: str, starts: str, sizes: str) -> bool:
    """Whether `0xfirst-0xlast` lies in one of the areas; False where something is no number."""
    try:
        first, last = (int(end, 16) for end in span.split("-"))
        areas = [
            (int(start, 16), int(start, 16) + int(size, 16))
            for start, size in zip(starts.split(), sizes.split(), strict=True)
        ]
    except ValueError:
        return False
    return any(start <= first and last < end for start, end in areas)


def _luo_number(trial: Trial) -> Outcome:
    numbers = trial.console.luo_numbers
    expected = f"liveupdate number {trial.update}, once"
    if not numbers:
        return no_data("no LUO line on the console", expected=expected)
    return outcome(
        numbers == (trial.update,),
        expected=expected,
        seen=", ".join(map(str, numbers)),
        evidence="console.log, luo",
    )


def _boot_ids(trial: Trial) -> Outcome:
    before, after = (_fact(trial.side(name), "kernel.boot_id") for name in (OUTGOING, INCOMING))
    if before is None or after is None:
        return no_data("fact kernel.boot_id on both sides")
    return outcome(
        before != after, expected=f"another than {before[:8]}", seen=after[:8], evidence="boot_id"
    )


def _console_order(trial: Trial) -> Outcome:
    setting, console = trial.setting, trial.console
    events = [(boot.number, f"Linux version {boot.release}") for boot in console.boots]
    events += [(number, "Starting new kernel") for number in console.kexec_lines]
    seen = [text for _, text in sorted(events)]
    expected = [
        f"Linux version {setting.outgoing.release}",
        "Starting new kernel",
        f"Linux version {setting.incoming.release}",
    ]
    return outcome(
        seen == expected and not console.firmware,
        expected=" | ".join(expected) + " and no firmware between",
        seen=" | ".join([*seen, *console.firmware]) or "an empty console",
        evidence="console.log",
    )


def _one_qemu(trial: Trial) -> Outcome:
    before, after = trial.setting.process_at_start, trial.setting.process_at_end
    return outcome(
        before == after,
        expected=f"pid {before.pid} from start to end",
        seen=f"pid {after.pid}, started {after.start}" if after else "QEMU had ended",
        evidence="/proc/PID/stat of QEMU",
    )


def _no_reset(trial: Trial) -> Outcome:
    resets = trial.resets()
    return outcome(
        not resets,
        expected="no platform reset",
        seen=f"{len(resets)} ({resets[0].details})" if resets else "no platform reset",
        evidence="qmp.jsonl, RESET",
    )


def _clocks(trial: Trial) -> Outcome:
    """On both sides; the one that is further off is told."""
    found = {
        side.name: drift(tsc_readings(side))
        for side in (trial.side(OUTGOING), trial.side(INCOMING))
        if side is not None
    }
    known = {name: one for name, one in found.items() if one is not None}
    expected = f"as fast as the host's, within {_DRIFT_MS} ms and {_DRIFT_PART:.0%}"
    if len(known) < 2:
        return no_data("facts t.*, tsc.khz on both sides", expected=expected)
    name, worst = max(known.items(), key=lambda one: abs(one[1].ms) / _allowed_ms(one[1]))
    fast = {name: _faster(side) for name in known if (side := trial.side(name))}
    wrong = [f"{n}: CLOCK_MONOTONIC {part:+.2%}" for n, part in fast.items() if abs(part) > _FASTER]
    return outcome(
        abs(worst.ms) <= _allowed_ms(worst) and not wrong,
        expected=f"{expected}, and CLOCK_MONOTONIC as fast as the counter, within {_FASTER:.1%}",
        seen="; ".join(
            [f"{name}: {worst.ms:+.0f} ms in {worst.span_ms:.0f} ms of its own", *wrong]
        ),
        evidence="facts t.*, tsc.khz, clock.*; stamps in dialogue.jsonl",
    )


def _faster(side: Side) -> float:
    """By which part the kernel's clock is faster than its counter's rate says; 0.0 where the side
    ended before it read both again."""
    khz, texts = side.number("tsc.khz"), [side.facts.get(f"clock.at_{p}") for p in ("start", "end")]
    try:
        (clock, counter), (later, end) = (map(int, (text or "").split(":")) for text in texts)
    except ValueError:
        return 0.0
    if not khz or end - counter < khz * _CLOCK_SPAN_MS:
        return 0.0
    return (later - clock) / ((end - counter) / khz * 1e6) - 1


def _allowed_ms(found: Drift) -> float:
    return _DRIFT_MS + _DRIFT_PART * found.span_ms


def wall_clock_leap(trial: Trial) -> float | None:
    """By how many ms the incoming kernel's CLOCK_REALTIME is ahead of the outgoing one's, by the
    host's clock; None where a side does not tell it."""
    before, after = (
        wall_clock_lag_ns(side) if (side := trial.side(name)) else None
        for name in (OUTGOING, INCOMING)
    )
    return None if before is None or after is None else (before - after) / 1e6


def _wall_clock(trial: Trial) -> Outcome:
    """CLOCK_REALTIME goes on by as much as the host's clock does."""
    expected = f"CLOCK_REALTIME goes on, to within {_WALL_CLOCK_MS} ms"
    leap = wall_clock_leap(trial)
    if leap is None:
        return no_data("fact realtime.ns on both sides", expected=expected)
    return outcome(
        abs(leap) <= _WALL_CLOCK_MS,
        expected=expected,
        seen=f"{leap:+.0f} ms from the outgoing to the incoming kernel, by the host's clock",
        evidence="facts realtime.*; stamps in dialogue.jsonl",
    )


def _no_splat(trial: Trial) -> Outcome:
    splats = trial.console.splats
    expected = "no warning, oops or panic in either kernel"
    if not splats and not has_console(trial.console):
        return _no_splat_in_ram(trial, expected)
    answer = outcome(
        not splats and trial.console.lines > 0,
        expected=expected,
        seen=f"line {splats[0].number}: {splats[0].text}" if splats else "none",
        evidence=f"console.log ({trial.console.lines} lines)",
    )
    still = trial.host.stood_still() if trial.host else None
    of_time = bool(splats) and all(splat.of_time for splat in splats)
    return disturbed(answer, still) if of_time and still else answer


def _no_splat_in_ram(trial: Trial, expected: str) -> Outcome:
    """Of a kernel without a console its log in RAM is all there is: it shows, or nothing does."""
    texts = trial.last_look.texts if trial.last_look else ()
    if splat := next((text for text in texts if SPLAT.search(text)), None):
        return outcome(False, expected=expected, seen=splat, evidence=LOG)
    side = "incoming" if trial.console.kexecs else "outgoing"
    return no_data(f"the {side} kernel had no console", expected=expected)


def _taint(allowed: int) -> Callable[[Trial], Outcome]:
    """Taint flags as each side found them (0), and as it left them (`allowed`)."""

    def ask(trial: Trial) -> Outcome:
        keys = ("kernel.taint", "kernel.taint_at_end")
        seen = [_fact(trial.side(name), key) for name in (OUTGOING, INCOMING) for key in keys]
        expected = f"0 at the start, {allowed} at the end of both sides"
        if None in seen:
            return no_data("facts kernel.taint, kernel.taint_at_end", expected=expected)
        return outcome(
            seen == ["0", str(allowed)] * 2,
            expected=expected,
            seen=f"outgoing {seen[0]}, {seen[1]}; incoming {seen[2]}, {seen[3]}",
            evidence="facts kernel.taint, kernel.taint_at_end",
        )

    return ask


ONE_QEMU = Check("one_qemu", "Is it the same QEMU process throughout?", _one_qemu)
FINISHED = Check("session_finished", "Was FINISH accepted?", facts_are(INCOMING, {"finish": "0"}))


def live_update(*, taint: int = 0) -> Claim:
    """The claim that every stage starts with; `taint` is what its workload does to a kernel."""
    question = (
        f"Is {taint} the only taint of either kernel?" if taint else "Are both kernels untainted?"
    )
    return Claim(
        "one kexec, and nothing else happened",
        "Exactly one kexec took place, from the outgoing to the incoming kernel, and nothing else.",
        (
            Check("both_sides_ended_well", "Did both sides run to completion?", _finished),
            Check("dialogue_complete", "Is the dialogue complete, and from this run?", _complete),
            Check(
                "other_kernel", "Do the two sides report the two expected releases?", _other_release
            ),
            Check(
                "build_ids", "Do the build IDs match the two kernels that were built?", _build_ids
            ),
            HOST_SAW_KERNELS,
            ALL_CPUS,
            CPU_TIMERS,
            Check(
                "kho_exec_from",
                "Does KHO name the outgoing kernel, with the right count?",
                _handover,
            ),
            Check(
                "same_scratch",
                "Does KHO keep its scratch areas, and is the kernel in one of them?",
                _same_scratch,
            ),
            Check("luo_number", "Does LUO report the right number of live updates?", _luo_number),
            Check("new_boot_id", "Is boot_id a different one?", _boot_ids),
            Check(
                "console_order",
                "Does the console show outgoing kernel, kexec, incoming kernel, no firmware?",
                _console_order,
            ),
            ONE_QEMU,
            Check("no_reset", "Was the platform never reset?", _no_reset),
            Check("no_splat", "Are both consoles free of splats?", _no_splat),
            Check(
                "clock_rate",
                "Does each kernel's clock run at the host's rate?",
                _clocks,
                timed=True,
            ),
            Check(
                "wall_clock",
                "Does the wall clock of one kernel continue in the other?",
                _wall_clock,
                timed=True,
            ),
            Check("not_tainted", question, _taint(taint)),
        ),
    )


LIVE_UPDATE = live_update()

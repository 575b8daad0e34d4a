# SPDX-License-Identifier: GPL-2.0-only
"""Questions about QEMU and its Linux guest, for every stage that has them.

Pure functions of a Trial, on what common/guest/lines.py found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common.checks.live_update import INCOMING, OUTGOING, no_data, outcome
from common.checks.model import Check, Claim, Outcome
from common.guest.lines import TRANSCRIPT
from common.record.evidence import Trial
from common.record.timing import host_ms

_GUEST = "guest.jsonl"
_STAMP_NS = 10_000_000


def beat(trial: Trial, which: str) -> dict[str, Any] | None:
    """The guest's last beat "before" the resume, the first "after" it, or the "last" one."""
    found: dict[str, Any] | None = trial.witness["guest"][which]
    return found


def qemu(trial: Trial, side: str) -> dict[str, Any]:
    """What the side's QEMU did, and when (host ns); empty when it was never connected to."""
    found: dict[str, Any] = trial.witness["qemu"].get(side, {})
    return found


def ran_between(begin: str, end: str, when: str) -> Callable[[Trial], Outcome]:
    """Beats of the guest between two stamps of the outgoing side, which QEMU was told to save."""

    def ask(trial: Trial) -> Outcome:
        side, saved = trial.side(OUTGOING), qemu(trial, OUTGOING).get("migrate")
        first, last = (side.stamps.get(key) if side else None for key in (begin, end))
        if first is None or last is None:
            return no_data(f"stamps {begin}, {end}", expected="beats of the guest")
        beats = sum(first < t < last for t in trial.witness["guest"]["beat_times"])
        return outcome(
            beats >= 3 and saved is not None,
            expected=f"at least 3 beats of the guest {when}",
            seen=f"{beats} beats",
            evidence=f"{_GUEST}, stamps {begin}, {end}",
        )

    return ask


def qemu_said(side: str, *names: str) -> Callable[[Trial], Outcome]:
    """That side's QEMU said all of it, and nothing that it was told to do failed."""

    def ask(trial: Trial) -> Outcome:
        said = qemu(trial, side)
        expected = f"{' and '.join(names)}, and no failure"
        if not said:
            return no_data(f"{TRANSCRIPT} has nothing of the {side} QEMU", expected=expected)
        failed = [f"{what}: {why}" for what, why in said["failed"].items()]
        failed += [f"no {name}" for name in names if f"event.{name}" not in said]
        return outcome(
            not failed, expected=expected, seen="; ".join(failed) or expected, evidence=TRANSCRIPT
        )

    return ask


def same_qemu(trial: Trial) -> Outcome:
    """Both say the same version, and it is that of the program that was packed."""
    versions = [qemu(trial, side).get("version") for side in (OUTGOING, INCOMING)]
    inner = trial.setting.inner_qemu
    # Runs of before it was recorded had the host's own.
    packed = inner.version if inner else trial.setting.host.versions.get("qemu", "?")
    if None in versions:
        return no_data(f"{TRANSCRIPT}: a greeting of both", expected=packed)
    seen = [".".join(str(v[part]) for part in ("major", "minor", "micro")) for v in versions if v]
    return outcome(
        seen == [packed, packed],
        expected=f"{packed}, as packed",
        seen=" and ".join(seen),
        evidence=TRANSCRIPT,
    )


def pause_between_beats(trial: Trial) -> float | None:
    """From the last beat before the resume to the first after it, by the host's clock, in ms."""
    before, after = beat(trial, "before"), beat(trial, "after")
    return host_ms(before["t"], after["t"]) if before and after else None


def _beats(trial: Trial, *names: str) -> list[dict[str, Any]] | None:
    found = [beat(trial, name) for name in names]
    return None if None in found else [one for one in found if one]


def same_boot(trial: Trial) -> Outcome:
    beats, hellos = _beats(trial, "before", "last"), trial.witness["guest"]["hellos"]
    if beats is None:
        return no_data("beats before and after the resume", expected="one boot_id")
    seen = [one.get("boot_id", "?")[:8] for one in beats]
    return outcome(
        seen[0] == seen[1] and len(hellos) == 1,
        expected=f"{seen[0]} and {seen[0]}, started once",
        seen=f"{seen[0]} and {seen[1]}, started {len(hellos)} times",
        evidence=f"{_GUEST}, boot_id",
    )


def _of(values: dict[str, Any], end: str) -> dict[str, str]:
    return {key: value for key, value in values.items() if key.endswith(end)}


def _same_processes(trial: Trial) -> Outcome:
    """pid and start time of each, read in the guest's /proc; a dead one has start time 0."""
    beats = _beats(trial, "before", "last")
    if beats is None:
        return no_data("beats before and after the resume", expected="the same processes")
    before, last = (_of(one, ".process") for one in beats)
    other = [key.partition(".")[0] for key in before if before[key] != last.get(key)]
    dead = [key.partition(".")[0] for key in last if last[key].endswith(":0")]
    wrong = [*(f"{name} is another" for name in other), *(f"{name} is dead" for name in dead)]
    return outcome(
        not wrong and len(before) >= 5,
        expected=f"the same {len(before)} processes, alive",
        seen=", ".join(wrong) or f"the same {len(before)} processes, alive",
        evidence=f"{_GUEST}, pid and start time",
    )


def _counts_go_on(trial: Trial) -> Outcome:
    """No stamper's count goes back, stands still, or leaps: it sleeps 10 ms before each step."""
    beats = _beats(trial, "before", "after", "last")
    if beats is None:
        return no_data("beats before and after the resume", expected="counts that go on")
    counts = [{key: int(value) for key, value in _of(one, ".count").items()} for one in beats]
    wrong = [key for key in trial.witness["guest"]["went_back"] if key.endswith(".count")]
    most = (int(beats[2]["mono_ns"]) - int(beats[0]["mono_ns"])) // _STAMP_NS + 2
    for key, before in counts[0].items():
        after, last = counts[1].get(key, -1), counts[2].get(key, -1)
        if not before <= after < last <= before + most:
            wrong.append(key)
    vcpus = int(trial.setting.options["vcpus"])
    key = "stamper0.count"
    return outcome(
        not wrong and len(counts[0]) == vcpus,
        expected=f"{vcpus} counts that go on by at most {most}",
        seen=f"{counts[0].get(key)}, then {counts[1].get(key)}, in the end {counts[2].get(key)}"
        + (f"; wrong: {', '.join(sorted(set(wrong)))}" if wrong else ""),
        evidence=f"{_GUEST}, stamperN.count",
    )


def _no_faults(
    process: str, work: str, at_least: Callable[[dict[str, Any]], int]
) -> Callable[[Trial], Outcome]:
    """The process found no fault, and did at least so much `work` after the resume."""

    def ask(trial: Trial) -> Outcome:
        beats = _beats(trial, "after", "last")
        if beats is None:
            return no_data("beats after the resume", expected=f"no fault of {process}")
        after, last = beats
        key = f"{process}.{work}"
        if key not in last or f"{process}.faults" not in last or key not in after:
            return no_data(f"{_GUEST}, {key}", expected="0 faults")
        done, needed = int(last[key]) - int(after[key]), at_least(last)
        faults = int(last[f"{process}.faults"])
        said = [text for text in trial.witness["guest"]["faults"] if f" {process}:" in text]
        return outcome(
            faults == 0 and done >= needed,
            expected=f"0 faults in at least {needed} {work} after the resume",
            seen=f"{faults} faults in {done} {work}" + (f": {said[0]}" if said else ""),
            evidence=f"{_GUEST}, {process}.*",
        )

    return ask


def _clocks(trial: Trial) -> Outcome:
    """No clock goes back, neither from stamp to stamp (10 ms) nor from beat to beat."""
    last, back = beat(trial, "last"), trial.witness["guest"]["went_back"]
    if last is None:
        return no_data("a beat after the resume", expected="no clock goes back")
    faults = {key: value for key, value in _of(last, ".faults").items() if "stamper" in key}
    wrong = [key for key in back if key in ("mono_ns", "boot_ns", "real_ns", "tsc")]
    wrong += [f"{key} {value}" for key, value in faults.items() if value != "0"]
    return outcome(
        bool(faults) and not wrong,
        expected="no clock goes back",
        seen=f"back went {', '.join(wrong)}" if wrong else "none went back",
        evidence=f"{_GUEST}, stamperN.faults, mono_ns, boot_ns, real_ns, tsc",
    )


NOT_BOOTED_AGAIN = Claim(
    "no reboot, no process restarted",
    "The guest was not rebooted, and none of its processes was restarted.",
    (
        Check("same_boot", "Is it the same boot of the guest?", same_boot),
        Check("same_processes", "Are they the same processes?", _same_processes),
        Check("counts_go_on", "Do their counts continue?", _counts_go_on),
    ),
)
WORK_GOES_ON = Claim(
    "the guest's own work goes on",
    "The guest's own work continues without an error.",
    (
        Check(
            "guest_memory",
            "Is all the memory it checks intact?",
            _no_faults("checker", "steps", lambda last: int(last["checker.pages"])),
        ),
        Check(
            "guest_tcp",
            "Does its TCP connection continue, byte for byte?",
            _no_faults("receiver", "bytes", lambda _last: 65536),
        ),
        Check(
            "guest_file",
            "Does the file it writes read back as written?",
            _no_faults("writer", "verified", lambda _last: 1024),
        ),
        Check("guest_clocks", "Does none of its clocks go back?", _clocks),
    ),
)

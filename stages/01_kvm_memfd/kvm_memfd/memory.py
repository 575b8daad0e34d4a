# SPDX-License-Identifier: GPL-2.0-only
"""Checks of memory that must be given back. Pure functions of a Trial.

workload/given_back.c puts a file of 2 MiB (one of 4, where it is retrieved in vain) through every
end that it can have, and notes the kernel's counters at each step. All but MemAvailable are exact;
the host counts what is registered with KHO.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from common.arch.known import ARCHITECTURES
from common.checks.live_update import INCOMING, OUTGOING, facts_are, no_data, outcome, results_ok
from common.checks.model import Check, Claim, Outcome
from common.machine import kho_tree
from common.record.evidence import Trial
from kvm_memfd.evidence import files_of
from kvm_memfd.files import words

FILE_KB, FAILED_KB = 2048, 4096
PAGES = FILE_KB // 4
_LIST_KB = 4
# What others free meanwhile: up to 896 kB was seen. A file that is not given back is twice as much.
# A cgroup's counters lack up to 64 pages of each CPU.
_TOLERANCE_KB = FILE_KB // 2
_INEXACT = ("available", "charged")
_MEMMAP = re.compile(r"memmap=0x([0-9a-f]{1,12})\$")
_NO_CGROUPS = "-19"  # ENODEV, of a kernel without memory cgroups
_NAMES = {
    "total": "MemTotal kB",
    "shmem": "Shmem kB",
    "charged": "kB charged to the memory cgroup",
    "committed": "Committed_AS kB",
    "pins": "pins",
    "areas": "vmalloc areas of KHO",
    "kho": "pages registered with KHO",
    "available": "MemAvailable kB",
    "taint": "taint flags (512: the kernel warned)",
}


def _own_kb(file_kb: int, folios: int | None = None) -> int:
    """What memfd_luo_preserve() takes: a page for the file, 16 bytes for each folio, and a chunk
    (one page) that says where these lie. LUO itself takes `_LIST_KB` for a session's files."""
    pages_of_list = -(-(folios or file_kb // 4) * 16 // 4096)
    return 4 + 4 * pages_of_list + 4


@dataclass(frozen=True)
class Step:
    """From one point to another, and by how much each counter changes; the others do not."""

    side: str
    start: str
    end: str
    words: str
    changes: Mapping[str, int]
    ignored: frozenset[str] = frozenset()


def _counters(trial: Trial, side: str, point: str) -> dict[str, int] | None:
    spoken = trial.side(side)
    said = words(spoken.facts.get(f"memory.{point}", "")) if spoken else {}
    absent = {"kho"} if _charged(trial, side) else {"kho", "charged"}
    try:
        found = {name: int(said[name]) for name in _NAMES if name not in absent}
    except (KeyError, ValueError):
        return None
    counted = files_of(trial).kho.get(point)
    if counted is not None:
        found["kho"] = kho_tree.stored_pages(counted)
    return found


def _charged(trial: Trial, side: str) -> bool:
    """Whether the kernel has memory cgroups; one of ours has, unless it says why not."""
    spoken = trial.side(side)
    return spoken is None or spoken.facts.get("memory.cgroup") != _NO_CGROUPS


def _faults(trial: Trial, step: Step) -> list[str] | Outcome:
    """What is not as it must be at the end of a step, in words; NO DATA where nobody knows."""
    start, end = (_counters(trial, step.side, point) for point in (step.start, step.end))
    if start is None or end is None:
        return no_data(f"{step.side} facts memory.{step.start}, memory.{step.end}")
    # Only a kernel that was booted by firmware shows its tree in debugfs: kho_init() (Linux 7.3)
    # returns before that in one that was started by kexec.
    counted = step.side == OUTGOING and trial.update == 1 and "kho" not in step.ignored
    if counted and ("kho" not in start or "kho" not in end):
        return no_data(f"files-witness.json: KHO at {step.start}, {step.end}")
    faults = []
    for name, label in _NAMES.items():
        if name in step.ignored or name not in start or name not in end:
            continue
        seen, wanted = end[name] - start[name], step.changes.get(name, 0)
        if abs(seen - wanted) > (_TOLERANCE_KB if name in _INEXACT else 0):
            faults.append(f"{label} {seen:+d} where {wanted:+d} is due")
    return [f"{step.words}: {', '.join(faults)}"] if faults else []


def _steps(*steps: Step) -> Callable[[Trial], Outcome]:
    def ask(trial: Trial) -> Outcome:
        faults: list[str] = []
        for step in steps:
            found = _faults(trial, step)
            if isinstance(found, Outcome):
                return found
            faults += found
        said = "; ".join(step.words for step in steps)
        return outcome(
            not faults,
            expected=f"the memory of a file is accounted for, to the page: {said}",
            seen="; ".join(faults) or _as_expected(trial, steps[0].side),
            evidence=f"{steps[0].side} facts memory.*",
        )

    return ask


def _as_expected(trial: Trial, side: str) -> str:
    if _charged(trial, side):
        return "as expected"
    return "as expected; who is charged was not asked, the kernel has no memory cgroups"


def _all_of(*asks: Callable[[Trial], Outcome]) -> Callable[[Trial], Outcome]:
    """The first answer that is not PASS, else the last one."""

    def ask(trial: Trial) -> Outcome:
        answers = [one(trial) for one in asks]
        return next((answer for answer in answers if answer.status != "PASS"), answers[-1])

    return ask


_PRESERVED = {"pins": PAGES, "areas": 1}
# What patches of our series promise otherwise (02/0004, 0005, 0020). A device may still write to
# memory: a file that could not be retrieved is kept; one that was is pinned until FINISH. And LUO
# takes its lists over while the kernel boots.
_KEEPS = "mm-memfd_luo-never-free-the-memory-of-a-failed-retri"
_PINS = "mm-memfd_luo-keep-restored-folios-pinned-until-finis"
_LOOKS_AT_BOOT = "liveupdate-panic-when-something-arrives-that-nobody-"
_SESSIONS_A_PAGE = 51
# Of an image no patch is known; the series' last ones name its formats.
_OF_THE_SERIES = {"kho-v5", "luo-v6", "memfd-v3"}


def _has(trial: Trial, patch: str) -> bool:
    kernel = trial.setting.incoming
    if kernel.prebuilt:
        return set(kernel.offers or ()) >= _OF_THE_SERIES
    return any(patch in name for name in kernel.patches)


# A session more may take a page more of LUO's list of sessions.
_NOT_KHO = frozenset({"kho"})


def _given(file_kb: int, folios: int | None = None) -> dict[str, int]:
    """Counter -> its increase in the incoming kernel once a file and its records are free; of
    small folios, unless it is said how many they are."""
    whole = file_kb + _own_kb(file_kb, folios) + _LIST_KB
    return {"total": whole, "available": whole}


# The holder has memory of its own meanwhile.
_HELD = _NOT_KHO | {"committed", "available"}

_abort = _steps(
    Step(OUTGOING, "large", "large-aborted", "session with a large folio closed", {}),
    Step(OUTGOING, "made", "preserved", "preserved", _PRESERVED, _NOT_KHO),
    Step(OUTGOING, "made", "aborted", "session closed", {}),
    Step(
        OUTGOING,
        "made",
        "closed",
        "and the file closed",
        {
            "shmem": -FILE_KB,
            "charged": -FILE_KB,
            "committed": -FILE_KB,
            "available": FILE_KB,
        },
        _NOT_KHO,
    ),
)
_killed = _steps(
    Step(OUTGOING, "made", "held", "held by a process", _PRESERVED, _HELD),
    Step(OUTGOING, "made", "killed", "its holder killed", {}),
)
_refused = _steps(
    Step(OUTGOING, "preserved", "refused", "preserved once more, refused", {}, _NOT_KHO),
    Step(OUTGOING, "aborted", "refused-late", "too large, or without memory, refused", {}),
    Step(OUTGOING, "begun", "unloaded", "an image refused, another unloaded", {}, _NOT_KHO),
)
_RETRIEVED = {
    "total": FILE_KB + _own_kb(FILE_KB),
    "shmem": FILE_KB,
    "charged": FILE_KB,
    "committed": FILE_KB,
    "available": _own_kb(FILE_KB),
}
_LIST = {"total": _LIST_KB, "available": _LIST_KB}


def _ended_by_finish(pinned: Mapping[str, int]) -> Callable[[Trial], Outcome]:
    released = {name: -number for name, number in pinned.items()}
    return _steps(
        Step(INCOMING, "arrived", "retrieved", "retrieved", {**_RETRIEVED, **pinned}),
        Step(INCOMING, "retrieved", "finished", "FINISH", {**_LIST, **released}),
        Step(INCOMING, "arrived", "released", "FINISH and close", _given(FILE_KB)),
    )


_finished_as_it_is = _ended_by_finish({})
_finished_pinned = _ended_by_finish(_PRESERVED)


def _finished(trial: Trial) -> Outcome:
    return (_finished_pinned if _has(trial, _PINS) else _finished_as_it_is)(trial)


_unretrieved = _steps(
    Step(INCOMING, "released", "discarded", "FINISH of what nobody retrieved", _given(FILE_KB)),
    Step(INCOMING, "discarded", "discarded-large", "and of a large folio", _given(FILE_KB, 1)),
)
_unfinished = _steps(
    Step(INCOMING, "discarded-large", "dropped", "session closed without FINISH", _given(FILE_KB))
)
_IN_VAIN = "a retrieve that fails, then FINISH"
_given_back = _steps(Step(INCOMING, "dropped", "failed", _IN_VAIN, _given(FAILED_KB)))
# How far the retrieve came is seen in MemTotal and in the pins; what it has restored is nobody's.
_kept = _steps(
    Step(INCOMING, "dropped", "failed", f"{_IN_VAIN}: kept", {}, frozenset({"total", "pins"})),
)


_failed = _all_of(
    facts_are(INCOMING, {"failed.retrieve": "-28", "failed.again": "-28", "failed.finish": "0"}),
    lambda trial: _kept(trial) if _has(trial, _KEEPS) else _given_back(trial),
)


def _lost_pages(trial: Trial) -> int:
    """What the retrieve that failed has left reserved, in pages; 0 where it is given back."""
    start, end = (_counters(trial, INCOMING, point) for point in ("dropped", "failed"))
    if not _has(trial, _KEEPS) or start is None or end is None:
        return 0
    return (_given(FAILED_KB)["total"] - (end["total"] - start["total"])) // 4


# Pages that KHO and LUO allocate for themselves, and that no session gives back: KHO's device tree
# (kexec_handover.c: kho_init) and its kexec metadata (kho_out_kexec_metadata), LUO's header
# (luo_core.c: luo_state_setup), which is freed before /init runs, and its header of FLBs
# (luo_flb.c: luo_flb_setup_outgoing).
_OWN = 4
# A file of one page: folio, file, list of folios, chunk. A session has a list of its files, with so
# many in a page (struct luo_file_ser). The racers' log is one of each, and so is what a racer may
# have had preserved: after the host's count.
_ONE_PAGE_FILE, _LISTED_IN_A_PAGE = 4, 63


def _taken_at_boot(trial: Trial) -> int:
    """Pages that are free again before /init looks: the list of sessions, with 02/0020.

    Beside the many there are some twenty sessions, so that this is the list's length in pages.
    """
    after = trial.side(INCOMING)
    if after is None or not _has(trial, _LOOKS_AT_BOOT):
        return 0
    return 1 + int(words(after.facts.get("many.sessions", "")).get("of", 0)) // _SESSIONS_A_PAGE


def _kept_off(trial: Trial) -> int:
    """Memory that the incoming kernel is told to leave alone, in kB: the outgoing one's text."""
    after = trial.side(INCOMING)
    found = _MEMMAP.search(after.facts.get("kernel.cmdline", "")) if after else None
    return int(found[1], 16) // 1024 if found else 0


def _all_there(trial: Trial) -> Outcome | None:
    """In the end the incoming kernel has as much memory as the outgoing one had, None if so.

    It may have more: of 4 GiB and above the outgoing one takes 64 MiB for swiotlb, for which the
    incoming one finds no place. What is restored twice is another question, asked exactly below.
    A later kernel of a chain says nothing of what was kept off the one before it.
    """
    start, end = _counters(trial, OUTGOING, "made"), _counters(trial, INCOMING, "end")
    if trial.update > 1 or start is None or end is None:
        return None
    kept = _kept_off(trial) + 4 * _lost_pages(trial)
    less = start["total"] - end["total"] - kept
    expected = f"MemTotal as in the outgoing kernel, {start['total']} kB, less {kept} kB kept off"
    if less <= _TOLERANCE_KB:
        return None
    seen = f"{end['total']} kB: {less} kB less than that"
    return outcome(
        False,
        expected=expected,
        seen=seen,
        evidence="facts memory.made, memory.end, kernel.cmdline",
    )


def _all_restored(trial: Trial) -> Outcome:
    """MemTotal grows by what is restored: by all that was registered, as the host counted it."""
    return _all_there(trial) or _registered_restored(trial)


def _same_memory_map(trial: Trial) -> Outcome:
    """What a kernel takes out of the map that it hands on is gone with each update."""
    maps = [boot.ram for boot in trial.console.boots]
    prints = ARCHITECTURES[trial.setting.architecture].memory_map
    if len(maps) < 2 or not all(bool(one) == prints for one in maps):
        return no_data("BIOS-e820 on both consoles", expected="the same ranges of RAM")
    unlike = next((one for one in maps if one != maps[0]), None)
    return outcome(
        unlike is None,
        expected=f"RAM at {', '.join(maps[0])}, for each kernel"
        if prints
        else "no map, as on any machine of this architecture",
        seen=f"RAM at {', '.join(unlike)}" if unlike else "the same",
        evidence="console.log, BIOS-e820",
    )


def _registered_restored(trial: Trial) -> Outcome:
    before, after = trial.side(OUTGOING), trial.side(INCOMING)
    end = _counters(trial, INCOMING, "end")
    start = after.number("mem.total_kb") if after else None
    guest = before.number("guest.pages") if before else None
    races = [words(text) for key, text in (after.facts if after else {}).items() if _is_race(key)]
    counted = files_of(trial).kho.get("reboot")
    if end is None or start is None or guest is None or not races:
        return no_data("facts mem.total_kb, memory.end, guest.pages, race.*")
    restored = (end["total"] - start) // 4
    if counted is None and trial.update == 1:
        return no_data("files-witness.json: KHO at reboot", expected="all given back")
    if counted is None:  # a kernel that came by kexec does not show its tree
        return outcome(
            restored > guest,
            expected=f"more pages than the guest's {guest}",
            seen=f"{restored} pages restored",
            evidence="incoming facts mem.total_kb, memory.end",
        )
    pages = kho_tree.stored_pages(counted)
    files = [1, *(int(race.get("files", 0)) for race in races)]
    since = _ONE_PAGE_FILE * sum(files) + sum(-(-n // _LISTED_IN_A_PAGE) for n in files)
    wanted = pages - _OWN + since - _lost_pages(trial) - _taken_at_boot(trial)
    return outcome(
        restored == wanted,
        expected=f"{wanted} pages: {pages} registered with KHO when the guest was captured, {_OWN}"
        f" of them KHO's and LUO's own, {since} for {sum(files)} files since",
        seen=f"{restored} pages restored"
        + (f", {wanted - restored} are lost to this kernel" if restored < wanted else ""),
        evidence="files-witness.json, incoming facts mem.total_kb, memory.end",
    )


def _is_race(key: str) -> bool:
    return key.startswith("race.")


# workload/many.c: after the first round of aborts, and of one FINISH
_MANY_ABORTED, _MANY_FINISHED = 3 * 63, 126
# MemAvailable's own changes: in 27 trials of 2026-11-30, at load 4 to 6, between -0.52 and -0.06 a
# file, median -0.25; -0.40 to +0.06 for aborts. A page that is lost with each file makes it -1.25.
_PART = 0.75


def _many_given_back(trial: Trial) -> Outcome:
    """A page that each file loses is less than MemAvailable's fluctuation, and many are more."""
    points = (
        (OUTGOING, "many-aborted-once", "many-aborted", _MANY_ABORTED, 0),
        (INCOMING, "many-arrived", "many-finished", _MANY_FINISHED, _ONE_PAGE_FILE),
    )
    faults: list[str] = []
    said: list[str] = []
    for side, begin, end, files, due in points:
        start, now = _counters(trial, side, begin), _counters(trial, side, end)
        if start is None or now is None:
            return no_data(f"{side} facts memory.{begin}, memory.{end}")
        pages = (now["available"] - start["available"]) / 4 / files
        what = f"{pages:+.2f} pages for each of {files} files"
        (faults if pages < due - _PART else said).append(f"{end}: {what}")
    return outcome(
        not faults,
        expected=f"nothing lost by an abort, {_ONE_PAGE_FILE} pages given back by FINISH and"
        f" close, within {_PART}",
        seen="; ".join(faults or said),
        evidence="facts memory.many-*, MemAvailable",
    )


_REFUSALS = (
    "preserve_copy_of_fd",
    "preserve_second_open",
    "preserve_second_open_elsewhere",
    "preserve_too_large",
    "resize_after_refusal",
    "preserve_without_memory",
    "empty_after_refusal",
    "preserve_after_refusal",
    "load_no_kernel",
)
INCOMING_RULES = (
    "finish_retrieved",
    "finish_unretrieved",
    "finish_unretrieved_large",
    "unretrieved_session_gone",
    "close_unfinished",
    "unfinished_session_gone",
)

CLAIM = Claim(
    "refusal, abort, end: nothing leaks",
    "All memory is given back, however a session ends; a refusal or an abort leaves no trace.",
    (
        Check(
            "preserved_once",
            "Is a preserved file refused under each of its names, and accepted again afterwards?",
            results_ok(OUTGOING, _REFUSALS),
        ),
        Check("abort_gives_back", "Is all memory given back once a session is closed?", _abort),
        Check("refusal_takes_nothing", "Does a refusal leave no memory behind?", _refused),
        Check("kill_gives_back", "Is all memory given back after the holder is killed?", _killed),
        Check("finish_gives_back", "Is memory given back after FINISH and close?", _finished),
        Check(
            "unretrieved_given_back",
            "Is the memory of a file that nobody retrieved given back after FINISH?",
            _unretrieved,
        ),
        Check(
            "unfinished_given_back",
            "Is the memory of a session closed without FINISH given back?",
            _unfinished,
        ),
        Check(
            "failed_retrieve",
            "Does a failed retrieve stay failed, and does FINISH give its memory back once?",
            _failed,
        ),
        Check(
            "many_given_back",
            "Do many files give back all that LUO and KHO took for them?",
            _many_given_back,
        ),
        Check(
            "same_memory_map",
            "Is the incoming kernel given the same memory map?",
            _same_memory_map,
        ),
        Check(
            "all_restored",
            "Is every page registered with KHO given back, and no other memory missing?",
            _all_restored,
        ),
    ),
)

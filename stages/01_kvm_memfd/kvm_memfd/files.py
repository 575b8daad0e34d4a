# SPDX-License-Identifier: GPL-2.0-only
"""Questions about memfds in all the states of workload/memfd_states.c. Pure functions of a Trial.

What is kept and what is not is what the DOC comment of mm/memfd_luo.c says (Linux 7.3).
"""

from __future__ import annotations

from collections.abc import Callable

from common.arch.known import ARCHITECTURES
from common.checks.live_update import INCOMING, OUTGOING, no_data, outcome
from common.checks.model import Check, Claim, Outcome
from common.record.dialogue import Side
from common.record.evidence import Trial
from kvm_memfd.evidence import files_of
from kvm_memfd.files_witness import frames

File = dict[str, str]
"""What the workload said of one file: "size", "seals", …"""

# include/uapi/linux/fcntl.h: what each seal forbids
_FORBIDS = {
    0x01: {"seal"},
    0x02: {"shrink"},
    0x04: {"grow"},
    0x08: {"map", "write"},
    0x10: {"map", "write"},
    0x20: {"chmod"},
}
_O_RDWR = 2
_PAGE_FLAGS = ("locked", "not-uptodate", "not-dirty", "not-lru", "not-swapbacked")


def words(text: str) -> dict[str, str]:
    """ "a=1 b=2" as a mapping; a part that is none is left out."""
    return dict(part.split("=", 1) for part in text.split() if "=" in part)


def _files(side: Side | None) -> dict[str, File]:
    facts = side.facts if side else {}
    prefix = "file."
    return {k.removeprefix(prefix): words(v) for k, v in facts.items() if k.startswith(prefix)}


def _each(expected: str, ask: Callable[[File, File], str | None]) -> Callable[[Trial], Outcome]:
    """Asks of each file, as it was before and is after; `ask` says what is wrong, or None."""

    def ask_all(trial: Trial) -> Outcome:
        before, after = _files(trial.side(OUTGOING)), _files(trial.side(INCOMING))
        if not before or not after:
            return no_data("facts file.* on both sides", expected=expected)
        faults = []
        for name, file in before.items():
            seen = after.get(name, {"error": "no data"})
            try:
                fault = f"error={seen['error']}" if "error" in seen else ask(file, seen)
            except (KeyError, ValueError) as error:
                return no_data(f"fact file.{name}: {error}", expected=expected)
            if fault:
                faults.append(f"{name}: {fault}")
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        return outcome(
            not faults,
            expected=f"{expected}, of {len(before)} files",
            seen="; ".join(faults[:3]) + more or "as expected",
            evidence="facts file.* on both sides",
        )

    return ask_all


def _content(before: File, after: File) -> str | None:
    if after["wrong"] == "0" and before["digest"] == after["digest"]:
        return None
    zeros = f", {after['zeros']} of them read as 0" if after["zeros"] != "0" else ""
    return (
        f"{after['wrong']} of {after['size']} bytes are not as written,"
        f" from {after['first']} on{zeros}"
    )


def _same(*keys: str) -> Callable[[File, File], str | None]:
    def ask(before: File, after: File) -> str | None:
        for key in keys:
            if before[key] != after[key]:
                return f"{key} was {before[key]}, is {after[key]}"
        return None

    return ask


def _sealed(before: File, after: File) -> str | None:
    seals = int(before["seals"], 0)
    if int(after["seals"], 0) != seals:
        return f"seals were {before['seals']}, are {after['seals']}"
    may = {"map", "write", "grow", "shrink", "chmod", "seal"}
    if before["size"] == "0":
        may -= {"write", "shrink"}
    for seal, forbidden in _FORBIDS.items():
        if seals & seal:
            may -= forbidden
    seen = {word for word in after["may"].split(",") if word}
    if seen == may:
        return None
    wrong = [f"{word} is {'allowed' if word in seen else 'refused'}" for word in seen ^ may]
    return f"with seals {before['seals']} {', '.join(sorted(wrong))}"


def _flags(trial: Trial) -> Outcome:
    """The same for every file, whatever it had before; retrieve sets close-on-exec itself."""
    flags = _O_RDWR | ARCHITECTURES[trial.setting.architecture].o_largefile
    wanted = {"flags": hex(flags), "cloexec": "1", "mode": "777"}

    def differ(_before: File, after: File) -> str | None:
        wrong = [f"{key}={after[key]}" for key, value in wanted.items() if after[key] != value]
        return ", ".join(wrong) or None

    return _each("flags O_RDWR|O_LARGEFILE, close-on-exec, mode 777", differ)(trial)


def _kept(_before: File, after: File) -> str | None:
    if after["lost"] != "0":
        return f"{after['lost']} bytes are lost once caches were dropped"
    wrong = [f"{after[key]} folios {key}" for key in _PAGE_FLAGS if after[key] != "0"]
    return ", ".join(wrong) or None


_each_kept = _each("each folio unlocked, up to date, dirty, on an LRU list, swap-backed", _kept)


def _all_kept(trial: Trial) -> Outcome:
    """Caches are dropped, then what is left is swapped out, and read once more."""
    answer = _each_kept(trial)
    sides = trial.side(OUTGOING), trial.side(INCOMING)
    swap = sides[1].facts.get("files.swap") if sides[1] else None
    before, after = (side.number("files.swapped") if side else None for side in sides)
    if answer.status != "PASS":
        return answer
    if swap is None:
        return no_data("fact files.swap", expected=answer.expected)
    if swap != "0":
        return _adding(answer, f"no swap in this kernel ({swap})")
    if not before or not after:
        return no_data("facts files.swapped: nothing was swapped out", expected=answer.expected)
    return _adding(answer, f"{before} pages were swapped out when preserved, {after} after FINISH")


def _adding(answer: Outcome, words: str) -> Outcome:
    return answer.model_copy(update={"seen": f"{answer.seen}; {words}"})


def _same_pages(trial: Trial) -> Outcome:
    """The page frames of each file, and which of them are parts of large folios."""
    before, after = trial.side(OUTGOING), trial.side(INCOMING)
    files, later = _files(before), _files(after)
    expected = "each file's page frames are those it had, large folios still large"
    if not before or not after or not files or not later:
        return no_data("facts frames.*, file.* on both sides", expected=expected)
    faults, pages, large = [], 0, 0
    for name, file in files.items():
        was, now = before.facts.get(f"frames.{name}"), after.facts.get(f"frames.{name}")
        if was is None or now is None:
            return no_data(f"fact frames.{name} on both sides", expected=expected)
        if not was:  # empty, or not to be looked at
            continue
        pages += sum(count for _, count in frames(was))
        large += int(file.get("compound", "0"))
        if was != now:
            faults.append(f"{name}: {_shortened(was)}, then {_shortened(now)}")
        elif file.get("compound") != later.get(name, {}).get("compound"):
            faults.append(f"{name}: {file.get('compound')} pages in large folios, then others")
    if not pages or not large:
        return no_data("no file with page frames, or none with a large folio", expected=expected)
    return outcome(
        not faults,
        expected=expected,
        seen="; ".join(faults[:2]) or f"{pages} pages in their frames, {large} in large folios",
        evidence="facts frames.*, file.*",
    )


def _shortened(text: str) -> str:
    return text if len(text) < 40 else f"{text[:40]}…"


def _host_saw(trial: Trial) -> Outcome:
    """The same bytes in the same page frames, read in QEMU's memory from outside."""
    seen = files_of(trial)
    before, after = seen.sha256.get("files-written"), seen.sha256.get("files")
    side = trial.side(OUTGOING)
    said = [v for k, v in (side.facts if side else {}).items() if k.startswith("frames.")]
    pages = sum(count for text in said for _, count in frames(text))
    if before is None or after is None or not pages:
        return no_data("files-witness.json has not both digests", expected="equal digests")
    return outcome(
        before == after and seen.pages == pages,
        expected=f"SHA-256 {before[:16]}… of {pages} pages",
        seen=f"SHA-256 {after[:16]}… of {seen.pages} pages",
        evidence="files-witness.json",
    )


CLAIM = Claim(
    "memfds of every state, nothing more",
    "A memfd comes back as memfd_luo documents it, whatever its state: content, size, position,"
    " seals; nothing of it can be lost afterwards, and nothing else is carried over.",
    (
        Check(
            "files_content",
            "Does every memfd hold what was written before and after preserve?",
            _each("every byte as written, 0 where nothing was", _content),
        ),
        Check(
            "files_size",
            "Is each the same size as before, and accounted accordingly?",
            _each("equal size and blocks", _same("size", "blocks")),
        ),
        Check(
            "files_position",
            "Is each file position the same as at the kexec?",
            _each("equal positions", _same("position")),
        ),
        Check(
            "files_sealed",
            "Does each have its seals and no others, and are they enforced?",
            _each("equal seals, what they forbid refused, all else allowed", _sealed),
        ),
        Check(
            "files_flags",
            "Are status flags, close-on-exec and mode those of a new memfd?",
            _flags,
        ),
        Check(
            "files_kept",
            "Can reclaim scan them, and does it lose nothing?",
            _all_kept,
        ),
        Check("files_same_pages", "Do they occupy the same page frames?", _same_pages),
        Check("host_saw_files", "Did the host see the same bytes from outside?", _host_saw),
    ),
)

# SPDX-License-Identifier: GPL-2.0-only
"""Random edits of a stored run, and what `judge` makes of each.

    PYTHONPATH=. python -m tests.edits RUN [NUMBER [SEED [SECONDS]]]

gives figures, and every edit that is amiss.

An edit changes one thing of one file, or of the folder: a type, a size, an order, a link, a name,
a deletion, a duplicate, a swap. Then record.json is made anew, where this program still can, and
the seal. What must come of it: exit status 2 and one sentence, or a verdict that is no better.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cli.parser import main
from common.errors import StagesError
from common.record.trial_files import MADE, RECORD, SUMS
from tests.stored import write_record

SECONDS, BYTES = 10.0, 1 << 30
"""Of CPU time, whatever else the host does; and of memory."""
_HUGE, _SEALED = 6 << 30, 64 << 20
_FORMATS = ("text", "mail", "html", "json", "junit", "kcidb", "ktap")
_RAW = ['"\\ud800"', "NaN", "9" * 5000, "1e999", "[" * 3000, '"' + "x" * 100_000 + '"', "-5", "5.5"]
_VALUES: list[Any] = [
    None, True, [], {}, "", "x", "\u202e\u2066\u200b\r\x1b[2J", 0, -1, 1.5, 10**8, 10**30, 2**63,
    [[]], {"a": {}}, "0x" + "f" * 400, "-1", "100000000", "9" * 5000, "1 from 2, each 0",
    "900000000 from 1, each 1", ":", "a:b:c", "," * 9,
]  # fmt: skip
Dice = random.Random


@dataclass(frozen=True)
class Outcome:
    """What came of an edit; `amiss` says what must not be, "" for nothing."""

    edit: str
    status: int
    said: str
    seconds: float
    amiss: str


def edit_once(folder: Path, dice: Dice) -> str:
    """One random edit of the run, in words."""
    while True:
        kind = dice.choice(KINDS)
        with contextlib.suppress(OSError, ValueError, LookupError):
            return f"{kind.__name__[1:]} {kind(folder, dice)}"


def reseal(folder: Path, stage: int, dice: Dice) -> None:
    """As somebody with this program would: nine times of ten the record follows."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    plain = all(_regular(folder / n) for n in (RECORD, MADE, SUMS))
    if plain and max(p.stat().st_size for p in files) <= _SEALED and dice.random() < 0.9:
        with contextlib.suppress(StagesError, ValueError, OSError, LookupError):
            write_record(folder, stage=stage)
    lines = []
    found = (p for p in folder.rglob("*") if p.is_file() and p.name != SUMS)
    for path in sorted(found, key=lambda p: str(p.relative_to(folder))):
        small = path.stat().st_size <= _SEALED and not path.is_symlink()
        data = path.read_bytes() if small else b""
        lines.append(f"{hashlib.sha256(data).hexdigest()}  {path.relative_to(folder)}\n")
    with contextlib.suppress(OSError, ValueError):
        if _regular(folder / SUMS):
            (folder / SUMS).write_text("".join(lines))


def _regular(path: Path) -> bool:
    return not path.exists() or (path.is_file() and not path.is_symlink())


def try_one(run: Path, seed: int, before: tuple[int, str], work: Path) -> Outcome:
    """Edit a copy of the run in `work`; `before` is what judge made of it unedited."""
    folder, dice = work / f"{run.name}-{seed}", Dice(seed)
    shutil.copytree(run, folder, symlinks=True)
    stage = json.loads((run / "run.json").read_text())["stage"]
    try:
        edit = edit_once(folder, dice)
        reseal(folder, stage, dice)
        begun = time.process_time()
        status, said, amiss = _judged(folder, before, dice)
        seconds = time.process_time() - begun
        if seconds > SECONDS:
            amiss = f"took {seconds:.1f} s"
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10 > BYTES:
            amiss = "took more than 1 GiB"
        return Outcome(edit, status, said, seconds, amiss)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _judged(folder: Path, before: tuple[int, str], dice: Dice) -> tuple[int, str, str]:
    try:
        status, said, error = told(["judge", str(folder)])
        if status == 2:
            return status, error.strip(), "" if error.count("\n") == 1 else "is not one sentence"
        words = ["report", str(folder), "--format", dice.choice(_FORMATS), "--from", "a@b.org"]
        if told(words)[0]:
            return status, said, f"has no report ({words[3]})"
    except (Exception, SystemExit):
        return 1, "", traceback.format_exc()
    line = said.splitlines()[0]
    better = status == 0 and before[0] != 0
    return status, line, "is judged better than it was" if better else ""


def told(words: list[str]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of this program, in this process."""
    out, error = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        status = main(words)
    out.flush()
    return status, out.buffer.getvalue().decode(), error.getvalue()


def _trial(folder: Path, dice: Dice) -> Path:
    return dice.choice(sorted(p for p in folder.iterdir() if p.is_dir()))


def _any(folder: Path, dice: Dice, *suffixes: str) -> Path:
    found = [*_trial(folder, dice).iterdir(), *(p for p in folder.iterdir() if p.is_file())]
    return dice.choice(sorted(p for p in found if not suffixes or p.suffix in suffixes))


def _deleted(folder: Path, dice: Dice) -> str:
    path = _any(folder, dice)
    path.unlink()
    return path.name


def _cut(folder: Path, dice: Dice) -> str:
    path = _any(folder, dice)
    size = dice.choice([0, 1, dice.randrange(path.stat().st_size + 1)])
    os.truncate(path, size)
    return f"{path.name} at {size}"


def _made_huge(folder: Path, dice: Dice) -> str:
    path = _any(folder, dice)
    os.truncate(path, _HUGE)
    return path.name


def _linked(folder: Path, dice: Dice) -> str:
    path, target = _any(folder, dice), dice.choice(["/dev/zero", "/etc/passwd", "trial.json", ".."])
    path.unlink()
    path.symlink_to(target)
    return f"{path.name} to {target}"


def _made_a_fifo(folder: Path, dice: Dice) -> str:
    path = _any(folder, dice)
    path.unlink()
    os.mkfifo(path)
    return path.name


def _made_a_folder(folder: Path, dice: Dice) -> str:
    path = _any(folder, dice)
    path.unlink()
    path.mkdir()
    return path.name


def _added(folder: Path, dice: Dice) -> str:
    names = b"guest.jsonl tables.json \xff\xfe -rf .hid a\x1b[2J socket.json".split()
    name, where = dice.choice(names), dice.choice([folder, _trial(folder, dice)])
    with open(os.fsencode(where) + b"/" + name, "wb") as file:  # noqa: PTH123 (no text)
        file.write(dice.choice([b"", b"{}\n", b"[1]\n", b"\x00" * 99]))
    return repr(name)


def _copied_over(folder: Path, dice: Dice) -> str:
    one, other = _any(folder, dice), _any(folder, dice)
    if one != other:
        other.write_bytes(one.read_bytes())
    return f"{one.name} over {other.name}"


def _swapped(folder: Path, dice: Dice) -> str:
    one = dice.choice(sorted(_trial(folder, dice).iterdir()))
    other = _trial(folder, dice) / one.name
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    return f"{one.name} of {one.parent.name} and {other.parent.name}"


def _copied_trial(folder: Path, dice: Dice) -> str:
    one = _trial(folder, dice)
    name = dice.choice(["repeat-02", ".main", "main-attempt-2", "x/main", "control-panic", "zz"])
    shutil.copytree(one, folder / name)
    with contextlib.suppress(OSError, ValueError):
        path = folder / name / "trial.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"name": Path(name).name}))
    return f"{one.name} as {name}"


def _renamed_trial(folder: Path, dice: Dice) -> str:
    one = _trial(folder, dice)
    one.rename(folder / dice.choice(["other", "-rf", "a\u202eb", "repeat-01", "main.old"]))
    return one.name


def _flipped(folder: Path, dice: Dice) -> str:
    path = _any(folder, dice)
    data = bytearray(path.read_bytes())
    place = dice.randrange(len(data))
    data[place : place + dice.choice([1, 8])] = dice.randbytes(dice.choice([0, 1, 8]))
    path.write_bytes(data)
    return f"{path.name} at {place}"


def _records_moved(folder: Path, dice: Dice) -> str:
    path, size = _any(folder, dice, ".bin"), dice.choice([8, 24])
    data = path.read_bytes()
    rows = [data[n : n + size] for n in range(0, len(data), size)]
    a, b = dice.randrange(len(rows)), dice.randrange(len(rows))
    rows[a], rows[b] = rows[b], rows[a]
    path.write_bytes(b"".join(rows))
    return f"{path.name}, {a} and {b} of {size}"


def _lines_moved(folder: Path, dice: Dice) -> str:
    path = _any(folder, dice, ".jsonl", ".log", SUMS)
    lines = path.read_bytes().splitlines(keepends=True)
    a, b = dice.randrange(len(lines)), dice.randrange(len(lines))
    what = dice.choice(["swap", "drop", "twice"])
    if what == "swap":
        lines[a], lines[b] = lines[b], lines[a]
    elif what == "drop":
        del lines[a]
    else:
        lines.insert(b, lines[a])
    path.write_bytes(b"".join(lines))
    return f"{path.name}: {what} {a} {b}"


def _value_changed(folder: Path, dice: Dice) -> str:
    """Somewhere in a JSON value, to another, also to one that only a raw text can say."""
    path = _any(folder, dice, ".json", ".jsonl")
    text = path.read_text()
    lines = text.split("\n") if path.suffix == ".jsonl" else [text]
    number = dice.randrange(max(1, len(lines) - (path.suffix == ".jsonl")))
    value: Any = {"": json.loads(lines[number])}
    place, holder = "", value
    key: Any = ""
    while isinstance(holder[key], (dict, list)) and holder[key] and dice.random() < 0.9:
        holder = holder[key]
        key = dice.choice(list(holder)) if isinstance(holder, dict) else dice.randrange(len(holder))
        place += f".{key}"
    what = dice.choice(["value", "value", "raw", "gone", "more"])
    mark = "@@edited@@"
    if what == "gone":
        del holder[key]
    elif what == "more" and isinstance(holder, dict):
        holder["more"] = dice.choice(_VALUES)
    else:
        holder[key] = mark if what == "raw" else dice.choice(_VALUES)
    new = json.dumps(value.get("", None), ensure_ascii=dice.random() < 0.5)
    lines[number] = new.replace(f'"{mark}"', dice.choice(_RAW))
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    return f"{path.name}:{number}{place[:60]} {what}"


def _fact_changed(folder: Path, dice: Dice) -> str:
    """In the stamped lines and in the bytes alike, as somebody would who knows of both."""
    trial = _trial(folder, dice)
    name = dice.choice([n for n in ("dialogue", "guest") if (trial / f"{n}.jsonl").exists()])
    rows = [json.loads(line) for line in (trial / f"{name}.jsonl").read_text().split("\n")[:-1]]
    number = dice.randrange(len(rows))
    head, equals, _ = rows[number][1].partition("=")
    new = str(dice.choice(_VALUES)).replace("\n", " ")
    rows[number][1] = f"{head}{equals}{new}".rstrip("\r")
    (trial / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (trial / f"{name}.log").write_bytes("".join(f"{row[1]}\r\n" for row in rows).encode())
    return f"{head} {new[:30]!r}"


KINDS: tuple[Callable[[Path, Dice], str], ...] = (
    _deleted,
    _cut,
    _made_huge,
    _linked,
    _made_a_fifo,
    _made_a_folder,
    _added,
    _copied_over,
    _swapped,
    _copied_trial,
    _renamed_trial,
    _flipped,
    _records_moved,
    _lines_moved,
    *[_value_changed] * 8,
    *[_fact_changed] * 8,
)


def tried(
    run: Path, number: int, seed: int, seconds: float = 1e9
) -> tuple[Counter[str], list[Outcome], float]:
    """What came of so many edits, or as many as fit into `seconds`; those that are amiss; and the
    longest time of one (s)."""
    end = time.monotonic() + seconds
    status, said, _error = told(["judge", str(run)])
    before = status, (said.splitlines() or [""])[0]
    counts: Counter[str] = Counter()
    amiss, longest = [], 0.0
    with tempfile.TemporaryDirectory(prefix="edits-") as work:
        for n in range(seed, seed + number):
            if time.monotonic() > end:
                break
            one = try_one(run, n, before, Path(work))
            same = (one.status, one.said) == before
            counts["refused" if one.status == 2 else "same verdict" if same else "a worse one"] += 1
            longest = max(longest, one.seconds)
            if one.amiss:
                amiss.append(one)
    return counts, amiss, longest


def _main() -> None:
    run, number = Path(sys.argv[1]), int((*sys.argv, "", "500")[2] or 500)
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    seconds = float(sys.argv[4]) if len(sys.argv) > 4 else 1e9
    counts, amiss, longest = tried(run, number, seed, seconds)
    for one in amiss:
        print(f"{one.edit}: {one.amiss}\n    {one.status}: {one.said[:300]}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    told_ = ", ".join(f"{count} {what}" for what, count in counts.most_common())
    print(f"{run.name}: {counts.total()} edits: {told_}; {len(amiss)} amiss")
    print(f"the longest took {longest:.1f} s of CPU time; at most {peak} MiB of memory")


if __name__ == "__main__":
    _main()

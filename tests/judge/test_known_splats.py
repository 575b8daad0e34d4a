# SPDX-License-Identifier: GPL-2.0-only
"""Splats that are known: what they excuse, till when, and what is said of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from common.cli.gate import splats_in_date
from common.cli.parser import main
from common.errors import UsageError
from common.judge.known_splats import KnownSplat, judge_with, read_known_splats, unmatched
from common.judge.stored_run import opened
from common.record.stored_file import read_stamped
from tests.recorded_trial import KVM_MEMFD
from tests.stored import store_run, write_record

WARNING = "WARNING: mm/early_ioremap.c:102 at check_early_ioremap_leak+0x1/0x2, CPU#0: x/1"
PATTERN = r"WARNING: mm/early_ioremap\.c"
Entry = Callable[..., KnownSplat]
Warned = Callable[..., Path]


@pytest.fixture
def warned(runs: Path) -> Warned:
    """A run whose incoming kernel said these lines at its end, and was tainted so."""

    def make(*said: str, taint: int = 512) -> Path:
        folder = store_run(runs / "warned", (KVM_MEMFD / "main", "main"))
        console = folder / "main" / "console.jsonl"
        t = read_stamped(console)[-1].t
        with console.open("a") as file:
            file.writelines(json.dumps([t, line]) + "\n" for line in said)
        with console.with_suffix(".log").open("a") as file:
            file.writelines(f"{line}\r\n" for line in said)
        for suffix in ("jsonl", "log"):
            path = folder / "main" / f"dialogue.{suffix}"
            head, key, tail = path.read_text().rpartition("# kernel.taint_at_end=0")
            assert key
            path.write_text(f"{head}# kernel.taint_at_end={taint}{tail}")
        write_record(folder)
        return folder

    return make


@pytest.fixture
def entry() -> Entry:
    """An entry that expires so many days after the recorded run began."""

    def make(pattern: str = PATTERN, *, days: int = 0) -> KnownSplat:
        with opened("warned") as stored:
            day = datetime.fromisoformat(stored.run.started).date()
        return KnownSplat(
            pattern=pattern,
            reason="fixed in 7.4",
            link="https://lore.kernel.org/r/1/",
            expiry=day + timedelta(days=days),
        )

    return make


def fallen(name: str, *known: KnownSplat) -> set[str]:
    with opened(name, known) as stored:
        (main_trial,) = stored.verdict.trials
        return {a.check for a in main_trial.answers if a.outcome.status != "PASS"}


def test_a_known_splat_fails_nothing_and_is_told(warned: Warned, entry: Entry) -> None:
    name = warned(WARNING, "Call Trace:").name
    assert fallen(name) == {"no_splat", "not_tainted"}
    known = entry()
    assert fallen(name, known) == set()
    with opened(name, (known,)) as stored:
        judged = stored.judged
    assert judged.verdict.status == "PASS"
    assert judged.verdict.why.endswith("; 1 known splat not counted")
    seen = {a.check: a.outcome.seen for a in judged.verdict.trials[0].answers}["no_splat"]
    assert seen.startswith("none beside these; line ")
    assert "fixed in 7.4; https://lore.kernel.org/r/1/" in seen
    (told,) = judged.told
    assert WARNING in told
    assert ": known, " in told
    assert not judged.expired
    assert list(unmatched([known], [judged])) == []


def test_past_its_date_it_fails_and_so_does_the_gate(
    warned: Warned, entry: Entry, capsys: pytest.CaptureFixture[str]
) -> None:
    name = warned(WARNING).name
    known = entry(days=-1)
    assert fallen(name, known) == {"no_splat", "not_tainted"}
    with opened(name, (known,)) as stored:
        judged = stored.judged
    assert judged.verdict.status == "FAIL"
    assert "EXPIRED" in judged.told[0]
    assert not splats_in_date([known], [judged])
    assert "# splats: EXPIRED, the gate fails: " in capsys.readouterr().out


def test_an_expired_entry_that_matches_nothing_fails_the_gate(
    warned: Warned, entry: Entry, capsys: pytest.CaptureFixture[str]
) -> None:
    name = warned(WARNING).name
    known = [entry(), entry("BUG: never", days=-1), entry("BUG: neither")]
    with opened(name, tuple(known)) as stored:
        assert stored.verdict.status == "PASS"
        assert not splats_in_date(known, [stored.judged])
        assert splats_in_date(known[::2], [judge_with(stored.run, stored.stage, known[::2])])
    out = capsys.readouterr().out
    assert "# splats: matched nothing: 'BUG: never'" in out
    assert "# splats: matched nothing: 'BUG: neither'" in out


@pytest.mark.parametrize(
    "said",
    [
        (WARNING, "BUG: Bad page state in process x"),
        ("BUG: Bad page state in process x", "Call Trace:", WARNING),
        (WARNING, "BUG: Bad page state in process x", "Call Trace:"),
        (WARNING, *[f"line {n}" for n in range(70)], "Call Trace:"),
    ],
)
def test_another_splat_still_fails(said: tuple[str, ...], warned: Warned, entry: Entry) -> None:
    assert fallen(warned(*said).name, entry()) == {"no_splat"}


def test_no_pattern_excuses_a_death(warned: Warned, entry: Entry) -> None:
    name = warned("Kernel panic - not syncing: x").name
    with opened(name, (entry(".*"),)) as stored:
        assert stored.verdict.status == "CRASHED"


def test_another_taint_is_not_excused(warned: Warned, entry: Entry) -> None:
    name = warned(WARNING, taint=512 | 32).name
    assert fallen(name, entry()) == {"not_tainted"}


def test_two_warnings_of_which_one_is_known(warned: Warned, entry: Entry) -> None:
    """The taint may be the other's."""
    name = warned(WARNING, "WARNING: mm/slub.c:1 at x").name
    assert fallen(name, entry()) == {"no_splat", "not_tainted"}


GOOD = 'pattern = "x"\nreason = "y"\nlink = "https://a/b"\nexpiry = 2026-12-31\n'


def test_judge_and_report_take_the_list(
    warned: Warned, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = warned(WARNING).name
    path = tmp_path / "splats.toml"
    path.write_text(f"[[splat]]\n{GOOD}".replace('"x"', f"'{PATTERN}'").replace("2026", "2999"))
    assert main(["judge", name]) == 1
    assert main(["judge", name, "--splats", str(path)]) == 0
    assert "splats: main: line " in capsys.readouterr().out
    assert main(["report", name, "--splats", str(path)]) == 0
    assert "known splat not" in " ".join(capsys.readouterr().out.split())
    mail = ["--format", "mail", "--from", "t@example.org"]
    assert main(["report", name, "--splats", str(path), *mail]) == 0
    assert "known, " in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1", "splat"),
        ("", "splat"),
        ("[[splat]]\n" + GOOD.replace('"x"', '"("'), "is not a regular expression"),
        ("[[splat]]\n" + GOOD.replace('"y"', '""'), "reason"),
        ("[[splat]]\n" + GOOD.replace("https", "file"), "link"),
        ("[[splat]]\n" + GOOD.replace("2026-12-31", '"never"'), "expiry"),
        ("[[splat]]\n" + GOOD.replace("expiry = 2026-12-31\n", ""), "expiry"),
        ("[[splat]]\n" + GOOD + "more = 1\n", "more"),
        ("[[splat]", "not TOML"),
        ("\x80", "not TOML"),
    ],
)
def test_what_is_no_list(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "splats.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=says):
        read_known_splats(path)
    path.write_text(f"[[splat]]\n{GOOD}")
    assert read_known_splats(path)[0].reason == "y"

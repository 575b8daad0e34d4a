# SPDX-License-Identifier: GPL-2.0-only
"""`matrix --formats`: what is predicted of a pair, what it did, and how that is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.cli.parser import main
from common.errors import Exit
from common.record.console import Splat
from common.record.evidence import Trial
from common.run.options import RunOptions
from common.stage.loading import load_stage, stage_folders
from common.suites.matrix import run as matrix_run
from common.suites.matrix.cells import Result
from common.suites.matrix.formats import (
    CARRIED,
    SORTS,
    Asked,
    Formats,
    Written,
    agrees,
    exit_of,
    formats,
    kind,
    predicted,
    write_written,
)
from common.suites.matrix.formats_table import RENDERED
from tests.conftest import FakeHypervisor, sentence

STOCK = ("kho-v4", "luo-v5", "memfd-v2")
OURS = ("kho-v5", "luo-v6", "memfd-v3", "pci-live-v1", "vfio-pci-live-v1")
ASKED = Asked(command="./kexec-stages matrix --formats", day="2026-11-29")
SAID = "KHO: setup: handover FDT (0x543000) is incompatible with 'kho-v5': 1"

Load = Callable[..., Trial]
STOPPED = Splat(t=0, number=1, text="Kernel panic - not syncing: KHO: cannot be read", fatal=True)


def test_each_stage_has_its_formats() -> None:
    assert {str(number) for number in stage_folders()} == CARRIED.keys()


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("kho-v4", "kho"),
        ("vfio-pci-v1", "vfio-pci"),
        ("vfio-pci-live-v2", "vfio-pci"),
        ("iommu-liveupdate", "iommu"),
        ("iommufd-live-v1", "iommufd"),
    ],
)
def test_the_kind_of_a_format(name: str, of: str) -> None:
    assert kind(name) == of


@pytest.mark.parametrize(
    ("stage", "gives", "takes", "so"),
    [
        ("1", STOCK, STOCK, "hands over"),
        ("1", OURS, OURS, "hands over"),
        ("1", OURS, STOCK, "refuses kho-v5"),
        ("1", ("kho-v4", "luo-v5", "memfd-v3"), STOCK, "refuses memfd-v3"),
        ("1", STOCK, ("kho-v4", "luo-v5"), "refuses memfd-v2"),
        ("1", ("kho-v4", "luo-v5"), STOCK, "does not give memfd"),
        ("2", STOCK, STOCK, "does not give vfio-pci, pci"),
        ("2", STOCK, OURS, "refuses kho-v4"),
        ("2", (*STOCK, "pci-v2", "vfio-pci-v1"), STOCK, "refuses vfio-pci-v1"),
        ("1", ("kho-v4", "luo-v5"), OURS, "does not give memfd"),
        ("2", OURS, OURS, "hands over"),
        ("2", OURS, (*OURS[:3], "pci-v2", "vfio-pci-v1"), "refuses vfio-pci-live-v1"),
    ],
)
def test_what_is_predicted(
    stage: str, gives: tuple[str, ...], takes: tuple[str, ...], so: str
) -> None:
    assert predicted(stage, gives, takes) == so


@pytest.mark.parametrize(
    ("foreseen", "ran", "words", "so"),
    [
        ("hands over", "hands over", "", True),
        ("hands over", "XFAIL", "", True),
        ("hands over", "corrupts", "", False),
        ("hands over", "refuses", SAID, False),
        ("refuses kho-v4", "refuses", SAID, True),
        ("refuses luo-v5", "refuses", SAID, False),
        ("refuses luo-v5", "refuses", "luo: LUO state is incompatible with 'luo-v6'", True),
        ("refuses memfd-v2", "refuses", "No registered handler for compatible 'memfd-v2'", True),
        ("refuses memfd-v2", "refuses", "No registered handler for compatible 'memfd-v3'", False),
        ("refuses kho-v4", "hands over", "", False),
        ("refuses kho-v4", "crashes", "", False),
        ("does not give memfd", "does not give", "", True),
        ("does not give vfio-pci, pci", "XFAIL", "", True),
        ("hands over", "no result", "", None),
        ("", "hands over", "", None),
    ],
)
def test_a_refusal_has_to_be_of_that_format(
    foreseen: str, ran: str, words: str, so: bool | None
) -> None:
    assert agrees(foreseen, ran, words) is so  # type: ignore[arg-type]


def trial(load: Load, gives: tuple[str, ...], takes: tuple[str, ...], **setting: object) -> Trial:
    found = load("main")
    sides = found.setting
    return found.model_copy(
        update={
            "setting": sides.model_copy(
                update={
                    "outgoing": sides.outgoing.model_copy(update={"offers": gives}),
                    "incoming": sides.incoming.model_copy(update={"offers": takes}),
                    **setting,
                }
            )
        }
    )


def refused(load: Load, ended: str, gives: tuple[str, ...], takes: tuple[str, ...]) -> Trial:
    found = trial(load, gives, takes, ended=ended)
    splats = (STOPPED,) if ended == "crashed" else ()
    console = found.console.model_copy(update={"refusals": (SAID,), "splats": splats})
    return found.model_copy(update={"console": console})


def found_of(load: Load) -> Formats:
    no_kexec = load("main").console.model_copy(update={"kexecs": ()})
    refuses = trial(load, STOCK[:2], STOCK, ended="bail", ended_detail="preserve of memfd: -2")
    results = [
        Result("stage-1.a-to-a.main", "PASS", "46 checks", {}, trial(load, STOCK, STOCK)),
        Result("stage-1.a-to-b.main", "REFUSED", "", {}, refused(load, "crashed", STOCK, OURS)),
        Result("stage-1.b-to-a.main", "REFUSED", "", {}, refused(load, "bail", OURS, STOCK)),
        Result(
            "stage-1.off-to-a.main",
            "FAIL",
            "",
            {},
            refuses.model_copy(update={"console": no_kexec}),
        ),
        Result("stage-1.b-to-b.main", "NO KERNEL", "it does not build", {}),
        Result("stage-1.b-to-b.byte-flipped", "PASS", "a control", {}),
    ]
    notes = [
        Written(stage="1", kernel="a", formats=STOCK),
        Written(stage="1", kernel="b", why="one image"),
        Written(stage="1", kernel="b", formats=OURS[:3]),
    ]
    return formats(results, notes, [ASKED, ASKED])


def test_each_format_is_of_something(recorded: Load) -> None:
    kinds = [kind for kinds in SORTS.values() for kind in kinds]
    assert sorted(kinds) == sorted(CARRIED["3"])
    page = RENDERED["page"](found_of(recorded))
    assert "| KHO kho-v5; sessions luo-v6; files memfd-v3 | files vfio-pci-live-v1; FLBs" in page


def test_what_was_found(recorded: Load) -> None:
    found = found_of(recorded)
    assert [(one.predicted, one.ran, one.agrees) for one in found.pairs] == [
        ("hands over", "hands over", True),
        ("refuses kho-v4", "refuses", True),
        ("refuses kho-v5", "refuses", True),
        ("does not give memfd", "does not give", True),
        ("", "no result", None),
    ]
    assert found.pairs[1].words == f"{SAID} (it stops: {STOPPED.text})"
    assert found.pairs[2].words == f"{SAID} (it boots on)"
    assert found.pairs[3].words == "preserve of memfd: -2"
    a, b, off = found.kernels
    assert (a.writes, a.took, b.writes, b.took) == (STOCK, STOCK, OURS[:3], ())
    assert (off.writes, off.not_seen) == ((), "nobody looked")
    assert exit_of(found) == Exit.NO_KERNEL
    built = found.model_copy(update={"pairs": found.pairs[:4]})
    assert exit_of(built) == Exit.PASS


@pytest.mark.parametrize(
    ("status", "fell", "ran", "exit"),
    [
        ("FAIL", {"ram_equal"}, "corrupts", Exit.FAIL),
        ("FAIL", {"guest_gap"}, "fails", Exit.FAIL),
        ("CRASHED", set(), "crashes", Exit.CRASHED),
        ("TIMEOUT", set(), "falls silent", Exit.TIMEOUT),
        ("DISTURBED", set(), "no result", Exit.HARNESS),
        ("REFUSED", set(), "refuses", Exit.FAIL),
    ],
)
def test_what_is_worse_is_never_a_pass(
    recorded: Load, status: str, fell: set[str], ran: str, exit: Exit
) -> None:
    name = "stage-1.a-to-a.main"
    result = Result(name, status, "", {}, trial(recorded, STOCK, STOCK), frozenset(fell))
    found = formats([result], [], [])
    assert (found.pairs[0].ran, exit_of(found)) == (ran, exit)


@pytest.mark.parametrize(
    "text", ["traps: PANIC: double fault, error_code: 0x0", "Kernel panic - not syncing: Fatal exc"]
)
def test_a_crash_behind_a_refusal_is_one(recorded: Load, text: str) -> None:
    text = text.replace("exc", "exception")
    dead = refused(recorded, "crashed", STOCK, OURS)
    console = dead.console.model_copy(
        update={"splats": (STOPPED.model_copy(update={"text": text}),)}
    )
    dead = dead.model_copy(update={"console": console})
    found = formats([Result("stage-1.a-to-b.main", "REFUSED", "", {}, dead)], [], [])
    assert (found.pairs[0].ran, found.pairs[0].agrees) == ("crashes", False)
    assert f"and crashes: {text}" in found.pairs[0].words
    assert exit_of(found) == Exit.FAIL


def test_nothing_that_was_run_is_no_pass() -> None:
    assert exit_of(formats([], [], [])) == Exit.HARNESS


def test_each_form_of_it_tells_the_strings(recorded: Load) -> None:
    found = found_of(recorded)
    for form, render in RENDERED.items():
        said = render(found)
        assert "kho-v4" in said and "refuses kho-v5" in said and SAID in said, form
        assert "it does not build" in said and "preserve of memfd: -2" in said, form
    page = RENDERED["page"](found)
    assert "| **a** | hands over | refuses kho-v4 |" in page
    assert page.count("    ./kexec-stages matrix --formats\n") == 1
    assert f"- refuses: `{SAID} (it stops: {STOPPED.text})`: a to b" in page
    assert Formats.model_validate_json(RENDERED["json"](found)) == found


def test_what_differs_from_the_prediction_stands_out(recorded: Load) -> None:
    result = Result("stage-1.a-to-b.main", "PASS", "46 checks", {}, trial(recorded, STOCK, OURS))
    found = formats([result], [], [])
    assert "hands over (NOT AS PREDICTED)" in RENDERED["text"](found)
    assert "**hands over** (predicted: refuses kho-v4)" in RENDERED["page"](found)
    assert exit_of(found) == Exit.FAIL


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--controls"], "no --controls, --chain"),
        (["--chain", "2"], "no --controls, --chain"),
        (["--arch", "arm64", "--stage", "1"], "works only on x86-64"),
    ],
)
def test_what_it_has_no_use_for(
    words: list[str], says: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["matrix", "--formats", *words]) == Exit.USAGE
    assert says in sentence(capsys)
    assert not list(runs.iterdir())


def test_collecting_needs_the_notes_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collect = ["matrix", "--formats", "json", "--collect", str(tmp_path)]
    assert main(collect) == Exit.USAGE
    assert "no formats.json is there" in sentence(capsys)
    (tmp_path / "formats.json").write_text(json.dumps({"command": "x", "day": "2026-11-29"}))
    write_written(tmp_path, Written(stage="1", kernel="a", formats=STOCK))
    assert main(collect) == Exit.HARNESS  # there is no cell
    (tmp_path / "written.stage-1.a.json").write_text("{")
    capsys.readouterr()
    assert main(collect) == Exit.USAGE
    assert "written.stage-1.a.json is damaged" in sentence(capsys)


@pytest.mark.parametrize(
    ("prebuilt", "build_id", "so"),
    [(True, "ab" * 20, "PASS"), (False, "ab" * 20, "FAIL"), (True, None, "FAIL")],
)
def test_two_images_may_be_called_alike(
    recorded: Load, prebuilt: bool, build_id: str | None, so: str
) -> None:
    found = recorded("main")
    old = found.setting.outgoing
    other = {"prebuilt": prebuilt, "release": old.release, "build_id": build_id or old.build_id}
    incoming = found.setting.incoming.model_copy(update=other)
    outgoing = old.model_copy(update={"prebuilt": prebuilt})
    update = {"outgoing": outgoing, "incoming": incoming}
    sides = tuple(
        side.model_copy(update={"facts": side.facts | {"kernel.release": old.release}})
        for side in found.sides
    )
    alike = found.model_copy(
        update={"setting": found.setting.model_copy(update=update), "sides": sides}
    )
    (check,) = (one for one in load_stage(1).checks if one.name == "other_kernel")
    assert check.ask(alike).status == so


@pytest.mark.parametrize("cells", [1, 3])
def test_libvirt_is_opened_once_in_a_process(
    cells: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its embedded driver refuses a second time."""
    did: list[str] = []

    class Once(FakeHypervisor):
        def __enter__(self) -> Once:
            did.append("opened")
            return self

    monkeypatch.setattr(matrix_run, "Hypervisor", Once)
    monkeypatch.setattr(matrix_run, "probe", lambda wanted: wanted)
    monkeypatch.setattr(matrix_run, "_built", lambda wanted, _folder: wanted)
    monkeypatch.setattr(matrix_run, "note_written", lambda *_words: did.append("looked"))
    monkeypatch.setattr(matrix_run, "run_cell", lambda *_words: did.append("ran"))
    monkeypatch.setattr(matrix_run, "_run_side_by_side", lambda *_words: did.append("workers"))
    wanted: Any = ["cell"] * cells
    matrix_run.run_cells(wanted, RunOptions(), tmp_path, jobs=1, formats=True)
    assert did == ["opened", "looked", "ran" if cells == 1 else "workers"]

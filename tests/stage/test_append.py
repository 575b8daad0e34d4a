# SPDX-License-Identifier: GPL-2.0-only
"""The user's words on the kernels' command lines: which are taken, and where they go."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from common.cli.parser import build_parser
from common.errors import UsageError
from common.judge.verdict import judge
from common.record.evidence import Run, Trial
from common.report.comparison import comparison
from common.report.text import report_text
from common.stage.append import behind, check
from common.stage.lane import in_lane
from common.stage.loading import all_stages, load_stage


def words(*command: str) -> list[str]:
    return list(build_parser().parse_args(command).append)


@pytest.mark.parametrize("verb", [("run", "1"), ("demo",), ("gate",), ("soak",)])
def test_words_are_split_and_add_up(verb: tuple[str, ...]) -> None:
    assert words(*verb) == []
    given = words(*verb, "--append", "numa=fake=2  init_on_free=1", "--append", "nokaslr")
    assert given == ["numa=fake=2", "init_on_free=1", "nokaslr"]


def test_they_stand_behind_ours_and_replace_the_scratch_alone() -> None:
    ours = ("console=ttyS0", "kho=on", "kho_scratch=16M,64M,16M")
    assert behind(ours, ()) == ours
    assert behind(ours, ("nosmp",)) == (*ours, "nosmp")
    assert behind(ours, ("kho-scratch=100%",)) == ("console=ttyS0", "kho=on", "kho-scratch=100%")


def test_what_breaks_nothing_is_taken_for_every_stage() -> None:
    check(["kho_scratch=32M,128M,32M", "numa=fake=2", "init_on_free=1"], all_stages())
    check(["pci=nomsi"], [load_stage(1)])


def test_what_a_lane_depends_on_is_refused_there() -> None:
    server = in_lane(load_stage(1), "server")
    check(["numa=fake=2"], [server])
    with pytest.raises(UsageError, match="depends on its numa=fake=2"):
        check(["numa=fake=4"], [server])


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("stage.nonce=1", "reserved for the harness"),
        ("console=ttyS1", "console on ttyS0"),
        ("kho=off", "nothing is handed over"),
        ("liveupdate=off", "no /dev/liveupdate"),
        ("quiet", "would not reach the console"),
        ("loglevel=1", "would not reach the console"),
        ("rdinit=/bin/sh", "/init of the initramfs"),
        ("--", "goes to /init, not to the kernel"),
        ("pci=nomsi", "stage 2 depends on its pci=realloc=off"),
        ("intel-iommu=off", "stage 3 depends on its intel_iommu=on"),
        ('dyndbg="file', "without quotes"),
        ("a\x07b", "printable"),
        ("x=" + "y" * 1024, "more than 1024"),
    ],
)
def test_what_would_break_the_harness_is_refused_in_one_sentence(word: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        check([word], all_stages())
    assert "\n" not in str(refused.value)


def test_report_and_comparison_say_them(recorded: Callable[..., Trial]) -> None:
    stage = load_stage(1)
    plain, appended = (
        Run(stage=1, tool="t", commit="c", started="s", command=("run", "1"), trials=(trial,))
        for trial in (
            recorded("main"),
            recorded("main", setting={"append": ["numa=fake=2", "nosmp"]}),
        )
    )
    verdicts = judge(plain, stage), judge(appended, stage)
    assert "append  numa=fake=2 nosmp" in report_text(appended, verdicts[1], stage).splitlines()
    text = comparison(("plain", "appended"), (plain, appended), verdicts, stage)
    assert "default lane against tcg, default lane, append numa=fake=2 nosmp." in text

# SPDX-License-Identifier: GPL-2.0-only
"""A series patch by patch: what each prefix is made of, and where the walk ends."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.cli import kernels as verbs
from common.cli.parser import main
from common.errors import Exit, UsageError
from common.machine.hypervisor import Hypervisor
from common.run.options import RunOptions
from common.stage.configured import configured
from common.stage.declaration import Stage
from common.stage.kernel_choice import KernelChoice, Origin
from common.stage.loading import load_stage
from common.stage.series import patches_of
from common.stage.series_folder import series_patches
from common.suites import each_patch
from kernel.errors import KernelBuildError
from kernel.make.config import requests

OPTIONS = RunOptions()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Stage, list[str], set[str]]]:
    """The stages that were to be run, with patches and symbols of their series."""
    found: list[tuple[Stage, list[str], set[str]]] = []

    def kernels(stage: Stage, _choice: KernelChoice) -> SimpleNamespace:
        assert isinstance(stage.config.series, Path)
        symbols = set(requests([stage.config.series / "series.config"]))
        found.append((stage, [p.name for p in series_patches(stage.config.series)], symbols))
        return SimpleNamespace(outgoing=None, incoming=None)

    monkeypatch.setattr(each_patch, "kernels_of", kernels)
    monkeypatch.setattr(each_patch, "_warnings", lambda _kernels: ())
    monkeypatch.setattr(each_patch, "execute_run", lambda *_words: (None, None, Path()))
    return found


def walk(number: int, *, first: int = 1, **choice: Any) -> list[each_patch.Step]:
    chosen = KernelChoice(**choice)
    stage = configured(load_stage(number), choice=chosen)
    nobody: Hypervisor = SimpleNamespace()  # type: ignore[assignment]
    return list(each_patch.steps(stage, chosen, OPTIONS, nobody, first=first))


def test_a_prefix_has_the_patches_up_to_it_and_the_symbols_that_they_define(
    seen: list[tuple[Stage, list[str], set[str]]],
) -> None:
    steps = walk(2)
    ours = patches_of(load_stage(2))
    assert [step.patch for step in steps] == list(ours)
    assert [len(patches) for _, patches, _ in seen] == list(range(1, len(ours) + 1))
    symbols = [symbols for _, _, symbols in seen]
    assert symbols[0] == set()
    assert symbols[-1] == set(requests([load_stage(2).folder / "series.config"]))
    assert all(fewer <= more for fewer, more in itertools.pairwise(symbols))


def test_a_later_series_stands_on_the_whole_of_the_earlier_ones(
    seen: list[tuple[Stage, list[str], set[str]]],
) -> None:
    steps = walk(3)
    before = len(patches_of(load_stage(2)))
    assert len(steps) == len(patches_of(load_stage(3))) - before
    stage, patches, _ = seen[0]
    assert len(patches) == before + 1
    # a patch of the second series must not sort before the first one's
    assert patches[-1].endswith(steps[0].patch.name[5:])
    assert stage.number == 1
    assert {e.tag for e in stage.devices({})} == {"iommu", "controller", "interface"}
    assert "intel_iommu=on" in stage.cmdline


def test_a_walk_taken_up_again_has_the_patches_before_it_applied(
    seen: list[tuple[Stage, list[str], set[str]]],
) -> None:
    ours = patches_of(load_stage(2))
    steps = walk(2, first=len(ours) - 1)
    assert [step.patch for step in steps] == list(ours[-2:])
    assert [len(patches) for _, patches, _ in seen] == [len(ours) - 1, len(ours)]


@pytest.mark.parametrize(
    ("number", "choice", "says"),
    [
        (2, {"first": 1000}, "--from 1000: the series of stage 2 has [0-9]+ patches"),
        (1, {}, "stage 1 has no series"),
        (2, {"series": "none"}, "stage 2 has no series"),
        (2, {"incoming": Origin("image", "x")}, "not an --image"),
    ],
)
def test_what_has_no_patches(number: int, choice: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        walk(number, **choice)


def _step(name: str, status: str, exit: Exit, warnings: tuple[str, ...] = ()) -> each_patch.Step:
    verdict: Any = SimpleNamespace(status=status, why="because", exit=exit)
    return each_patch.Step(Path(name), 1.0, warnings, verdict, Path("run"))


def walks(monkeypatch: pytest.MonkeyPatch, steps: Callable[..., Iterator[each_patch.Step]]) -> None:
    monkeypatch.setattr(verbs, "steps", steps)
    monkeypatch.setattr(verbs, "Hypervisor", lambda _uri: nullcontext())


def test_the_walk_ends_at_the_first_that_falls(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fake(*_words: object, **_first: object) -> Iterator[each_patch.Step]:
        yield _step("0001-a.patch", "PASS", Exit.PASS)
        yield _step("0002-b.patch", "CRASHED", Exit.CRASHED)
        raise AssertionError("it went on")

    walks(monkeypatch, fake)
    assert main(["kernel", "each"]) == Exit.CRASHED
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == ["0001-a", "0002-b"]
    assert "CRASHED, because" in said[1]


def test_a_patch_that_does_not_build(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fake(*_words: object, **_first: object) -> Iterator[each_patch.Step]:
        yield _step("0001-a.patch", "PASS", Exit.PASS)
        raise KernelBuildError("drivers/x.c:1: no")

    walks(monkeypatch, fake)
    assert main(["kernel", "each"]) == 125
    assert "drivers/x.c:1: no" in capsys.readouterr().err


def test_a_warning_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fake(*_words: object, **_first: object) -> Iterator[each_patch.Step]:
        yield _step("0001-a.patch", "PASS", Exit.PASS, ("x.c:1: warning: unused",))

    walks(monkeypatch, fake)
    assert main(["kernel", "each"]) == Exit.FAIL
    assert "x.c:1: warning: unused" in capsys.readouterr().out


def test_warnings_are_read_from_the_builds_logs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "build.log").write_text("  CC x.o\nx.c:1: warning: unused\n")
    kernel = SimpleNamespace(image=tmp_path / "bzImage")
    pair = SimpleNamespace(outgoing=kernel, incoming=kernel)
    monkeypatch.setattr(each_patch, "kernels_of", lambda *_words: pair)
    monkeypatch.setattr(each_patch, "execute_run", lambda *_words: (None, None, Path()))
    assert walk(2)[0].warnings == ("x.c:1: warning: unused",)

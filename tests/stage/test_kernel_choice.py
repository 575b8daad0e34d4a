# SPDX-License-Identifier: GPL-2.0-only
"""Which kernels the options choose, and what of a stage can be run on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.cli.kernel_options import chosen_kernels
from common.cli.parser import build_parser
from common.errors import UsageError
from common.judge.stored_run import opened
from common.judge.verdict import judge_trial
from common.paths import CHECKOUT
from common.record.evidence import Trial, collect
from common.report.text import report_text
from common.run.kernels import kernel_spec
from common.stage.configured import configured, configured_as_recorded, skipped_in_words
from common.stage.declaration import Stage
from common.stage.kernel_choice import KernelChoice, Origin, is_archive, origin_of
from common.stage.loading import load_stage
from common.stage.series import kernel_needs, patches_of
from kernel.make.config import requests
from kernel.source.source import Source, SourceKind
from tests.recorded_trial import VFIO_NOIOMMU
from tests.stored import store_run

ADDED = "diff --git a/Kconfig b/Kconfig\n--- a/Kconfig\n+++ b/Kconfig\n@@ -1 +1,2 @@\n x\n"


def choice(*words: str) -> KernelChoice:
    return chosen_kernels(build_parser().parse_args(["run", "2", *words]))


@pytest.fixture
def tree(tmp_path: Path) -> Source:
    """A source that knows two symbols of stage 2's series."""
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "Kconfig").write_text("config PCI_LIVEUPDATE\n\tbool\n")
    return Source(folder, "0" * 64, "a tree", "7.3.4", SourceKind.TREE)


def test_the_default_is_debians_source_with_our_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEXEC_STAGES_SOURCE", raising=False)
    default = choice()
    assert default == KernelChoice()
    assert (default.outgoing.name, default.series) == ("linux-source-7.3", "ours")


def test_the_environment_names_another_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, image = tmp_path / "linux-7.3.4.tar.xz", tmp_path / "bzImage"
    archive.touch()
    image.touch()
    monkeypatch.setenv("KEXEC_STAGES_SOURCE", str(archive))
    assert choice() == KernelChoice()
    assert choice().origins == (Origin("source", str(archive)),) * 2
    assert choice("--tree", "/a").outgoing == Origin("tree", "/a")
    assert choice("--incoming-source", "/b.tar").origins == (
        Origin("source", str(archive)),
        Origin("source", "/b.tar"),
    )
    for wrong in (image, "linux-source-7.2"):
        monkeypatch.setenv("KEXEC_STAGES_SOURCE", str(wrong))
        with pytest.raises(UsageError, match="KEXEC_STAGES_SOURCE="):
            choice()


def test_what_holds_for_one_side_goes_before_what_holds_for_both() -> None:
    pair = choice("--tree", "/a", "--incoming-package", "linux-source-7.2")
    assert pair.outgoing == Origin("tree", "/a")
    assert pair.incoming == Origin("package", "linux-source-7.2")


def test_an_origin_says_the_option_that_chooses_it() -> None:
    words = [word for side in ("outgoing", "incoming") for word in Origin("tree", "/a").words(side)]
    assert choice(*words).origins == (Origin("tree", "/a"), Origin("tree", "/a"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--tree", "a", "--image", "b"], "--tree and --image name two kernels for one side"),
        (["--series", "/nowhere"], "neither none nor ours nor a folder of patches"),
        (
            ["--series", str(CHECKOUT / "docs")],
            "the folder holds no *.patch, no quilt `series`",
        ),
    ],
)
def test_what_cannot_be_meant(words: list[str], says: str) -> None:
    with pytest.raises(UsageError) as error:
        choice(*words)
    assert says in str(error.value)


def test_an_origin_is_told_by_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "bzImage").write_text("")
    assert origin_of("linux-source-7.2").kind == "package"
    assert origin_of("linux-source-7.2@sid") == Origin("package", "linux-source-7.2@sid")
    assert origin_of(str(tmp_path)).kind == "tree"
    assert origin_of(str(tmp_path / "bzImage")).kind == "image"
    with pytest.raises(
        UsageError, match=r"not a linux-source-X\.Y, kernel tree, tarball or bzImage"
    ):
        origin_of("linux-7.2")
    with pytest.raises(UsageError, match=r"linux-source-7\.2@ is no"):
        origin_of("linux-source-7.2@")


def stage_2(*words: str) -> Stage:
    return configured(load_stage(2), choice=choice(*words))


def test_without_our_series_its_controls_are_left_out() -> None:
    stage = stage_2("--series", "none")
    assert patches_of(stage) == ()
    assert stage.config.skipped_controls == tuple(c.name for c in stage.controls if c.own_kernels)
    assert {"bus-mastering-patch-off", "silenced", "skew-pci-list-off", "stock-kernel"} <= set(
        stage.config.skipped_controls
    )
    assert not any(control.own_kernels for control in stage.runnable_controls)
    assert len(stage.runnable_controls) + len(stage.config.skipped_controls) == len(stage.controls)
    assert "bus-mastering-patch-off" in skipped_in_words(stage)


def test_a_folder_of_patches_is_the_series_and_stock_is_what_it_is_without(tmp_path: Path) -> None:
    for name in ("0000-cover.patch", "0002-b.patch", "0001-a.patch", "mine.config"):
        (tmp_path / name).write_text("")
    stage = stage_2("--series", str(tmp_path), "--config", "/last.config")
    assert [p.name for p in patches_of(stage)] == ["0001-a.patch", "0002-b.patch"]
    names = [p.name for p in kernel_needs(stage).certain]
    assert names == ["kernel.config", "mine.config", "last.config"]
    assert "stock-kernel" not in stage.config.skipped_controls
    assert "pin-patch-off" in stage.config.skipped_controls
    stock = stage.control("stock-kernel")
    assert patches_of(stage, stock) == ()
    assert [p.name for p in kernel_needs(stage, stock).certain] == ["kernel.config", "last.config"]


def test_a_fault_of_the_incoming_kernel_alone_leaves_the_outgoing_one_as_it_is(
    tree: Source,
) -> None:
    stage = stage_2()
    skewed, off = stage.control("skew-pci-list"), stage.control("skew-pci-list-off")
    main = kernel_spec(stage, tree, "out")
    for control in (skewed, off):
        out = kernel_spec(stage, tree, "out", control)
        assert (out.patches, out.fragments) == (main.patches, main.fragments)
    patches = kernel_spec(stage, tree, "in", skewed).patches
    assert [p.name for p in patches[len(main.patches) :]] == ["another-pci-list.patch"]
    incoming = kernel_spec(stage, tree, "in", off)
    assert incoming.patches == main.patches
    assert [p.name for p in incoming.fragments[len(main.fragments) :]] == ["no-pci-list.config"]


def test_a_control_may_leave_a_patch_out_and_add_a_fault() -> None:
    stage = stage_2()
    patches = patches_of(stage, stage.control("skew-list-unchecked"))
    assert patches[-1].name == "list-corrupted.patch"
    left_out = {p.name[5:] for p in patches_of(stage)} - {p.name[5:] for p in patches}
    assert sorted(left_out) == [
        "PCI-Check-the-list-of-preserved-devices.patch",
        "PCI-Preserve-no-device-while-the-driver-of-a-bridge-.patch",
    ]
    assert len(patches) == len(patches_of(stage)) - 1


def test_of_an_image_there_are_no_variants() -> None:
    stage = stage_2("--outgoing-image", "a", "--incoming-image", "b")
    assert set(stage.config.skipped_controls) == {c.name for c in stage.controls if c.own_kernels}


def asked_for(stage: Stage, source: Source) -> set[str]:
    return set(requests(kernel_spec(stage, source, "out").fragments))


def test_what_our_series_adds_is_asked_for_where_it_is(tree: Source, tmp_path: Path) -> None:
    ours = {"PCI_LIVEUPDATE", "VFIO_PCI_LIVEUPDATE"}
    assert ours <= asked_for(stage_2(), tree)
    assert not ours & asked_for(stage_2("--series", "none"), tree)
    (tree.path / "Kconfig").write_text("config PCI_LIVEUPDATE\nconfig VFIO_PCI_LIVEUPDATE\n")
    assert ours <= asked_for(stage_2("--series", "none"), tree)
    (tree.path / "Kconfig").write_text("config PCI_LIVEUPDATE\n")
    series = tmp_path / "series"
    series.mkdir()
    (series / "1.patch").write_text(ADDED + "+config VFIO_PCI_LIVEUPDATE\n")
    assert ours <= asked_for(stage_2("--series", str(series)), tree)


def test_a_tree_may_have_what_an_earlier_stage_brings(tree: Source) -> None:
    (tree.path / "Kconfig").write_text("config PCI_LIVEUPDATE\nconfig VFIO_PCI_LIVEUPDATE\n")
    found = asked_for(configured(load_stage(3), choice=choice("--series", "none")), tree)
    assert {"PCI_LIVEUPDATE", "VFIO_PCI_LIVEUPDATE"} <= found
    assert "IOMMU_LIVEUPDATE" not in found


def stock_trial(tmp_path: Path) -> Trial:
    """The recorded trial of stage 2 as kernels without any patch would have recorded it."""
    folder = store_run(tmp_path / "run", (VFIO_NOIOMMU / "stock", "main"), stage=2)
    return collect(folder / "main", witness=load_stage(2).witness)


def test_a_stock_kernel_is_an_expected_failure_with_its_cause(tmp_path: Path) -> None:
    trial = stock_trial(tmp_path)
    assert trial.setting.series == "none"
    stage = configured_as_recorded(load_stage(2), trial.setting)
    verdict = judge_trial(trial, stage)
    assert verdict.status == "XFAIL"
    assert "the PCI core clears bus mastering at kexec: PCI_COMMAND of 03:00.0 <-" in verdict.why


def test_another_cause_is_none_that_was_expected(tmp_path: Path) -> None:
    trial = stock_trial(tmp_path)
    sides = [
        s.model_copy(update={"facts": s.facts | {"ram.pages_different": "1"}}) for s in trial.sides
    ]
    verdict = judge_trial(trial.model_copy(update={"sides": tuple(sides)}), load_stage(2))
    assert verdict.status == "FAIL"


def test_the_report_says_series_and_what_was_left_out(runs: Path) -> None:
    folder = store_run(runs / "stock", (VFIO_NOIOMMU / "stock", "main"), stage=2)
    with opened(folder.name) as one:
        text = report_text(one.run, one.verdict, one.stage)
    assert "series  none" in text
    assert "Skipped: bus-mastering-patch-off, adopt-patch-off, silenced" in text
    assert "None were run: the main run is an expected failure" in text


def test_names_of_tarballs() -> None:
    assert all(is_archive(Path(n)) for n in ("a.tar", "linux-7.3.4.tar.xz", "a.tar.zst", "a.tgz"))
    assert not any(is_archive(Path(n)) for n in ("bzImage", "vmlinuz-7.3.tar-none", "a.xz"))

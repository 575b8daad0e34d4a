# SPDX-License-Identifier: GPL-2.0-only
"""What is expected of a kernel, claim by claim, before anything runs: `list --promised`."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path

from tabulate import tabulate

from common.checks.promise import PROMISES, Gap, gap_of
from common.run.kernels import BuildProgress, default_tree, source_of
from common.stage.declaration import Stage
from common.stage.kernel_choice import Origin
from common.stage.loading import all_stages
from common.stage.series import OURS
from common.stage.series_folder import Series, series_patches
from kernel.image.offers import offers_of_image, offers_of_patches, offers_of_tree
from kernel.image.prebuilt import unpacked
from kernel.source.source import kernel_version


def promised(origin: Origin, series: Series) -> str:
    """Every check of every stage: whose promise it is, and what is expected of that kernel.

    Raises UsageError, SourceError or FetchError for what is no kernel, or cannot be had.
    """
    offers = sorted({*_offers(origin), *offers_of_patches(_patches(series))})
    lines = [f"{origin.name}, series {series}: {', '.join(offers) or 'no format of a live update'}"]
    rows = [[one.whose, "yes" if one.made_by(offers) else "no", one.source] for one in PROMISES]
    lines += ["", tabulate(rows, headers=["promise", "made", "where"]), ""]
    for stage in all_stages():
        lines += [_stage(stage, offers), ""]
    return "\n".join(lines)


def _offers(origin: Origin) -> tuple[str, ...]:
    if origin.kind == "tree":  # only its headers are asked for: it need not be read whole
        kernel_version(origin.path)
        return offers_of_tree(origin.path)
    if origin.kind != "image":
        return offers_of_tree(source_of(origin, BuildProgress()).path)
    with tempfile.TemporaryDirectory(prefix="kexec-stages-image-") as folder:
        vmlinux = unpacked(origin.path, default_tree() / "scripts", Path(folder) / "vmlinux")
        return offers_of_image(vmlinux.read_bytes())


def _patches(series: Series) -> Iterable[Path]:
    if isinstance(series, Path):
        return series_patches(series)
    folders = sorted(OURS.iterdir()) if series == "ours" else []
    return [patch for folder in folders if folder.is_dir() for patch in series_patches(folder)]


def _stage(stage: Stage, offers: Collection[str]) -> str:
    gap = gap_of(stage.gaps, [offers])
    title = f"Stage {stage.number}, {stage.workload}"
    if gap:
        title += f": {gap.what} (until {gap.until})"
    rows = [
        [check.name, stage.promised_by(check.name).whose, _expected(check.name, gap)]
        for check in stage.checks
    ]
    return f"{title}\n" + tabulate(rows, headers=["check", "whose", "expected"])


def _expected(check: str, gap: Gap | None) -> str:
    if gap is None:
        return "PASS"
    if reason := gap.unasked.get(check):
        return f"N/A: {reason}"
    if check in gap.breaks:
        return "XFAIL"
    return "PASS or XFAIL" if check in gap.may_break else "PASS"

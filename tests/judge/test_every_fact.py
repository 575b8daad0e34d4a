# SPDX-License-Identifier: GPL-2.0-only
"""Whatever the workload reports is read by somebody: a fact that nobody reads is no evidence.

By a check or a control's reason, as seen here; or by name: by a report, a witness, a progress line.
"""

from __future__ import annotations

import re

import pytest

from common.judge.verdict import judge_trial
from common.paths import CHECKOUT
from common.record.evidence import collect
from common.stage.declaration import Workload
from common.stage.loading import load_stage
from tests.recorded_trial import RECORDED

NUMBER = re.compile(r"[0-9]+")
DESCRIBES = re.compile(
    # read by their prefix: clock_rate, the lists of files and frames, the witness of the rings
    r"t\.|file\.|frames\.|(other\.)?ring\.|preserve\.state\.us$|qmp\.\w+\.argv$|"
    # what a reader of the dialogue wants to know where something went wrong, and no claim rests on
    r"preserve\.(pages_moved|memfds)$|guest\.(N\.pages|vector|swept_pages)$|hog\.mib$|"
    r"guest\.N\.errors\.timer$|warm_up$|caught_up$|incoming\.found$|reader\.frames\.\w+$|"
    r"iommu_pages(\.before|\.boot)?$|cpr\.(areas|bytes)$|irq\.vectors$|capture\.pauses$|"
    # the workload ends where it is not 0
    r"cpr\.state$|release\.detach$|retrieve\.pfns$"
)


class Facts(dict[str, str]):
    """A side's facts, and which of them were asked for."""

    def __init__(self, facts: dict[str, str]) -> None:
        super().__init__(facts)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> str:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
        """As a dictionary has it."""
        self.read.add(key)
        return super().get(key, default)


def named() -> str:
    """All Python of the suite: what it names, it reads."""
    sources = [*(CHECKOUT / "common").rglob("*.py"), *(CHECKOUT / "stages").rglob("*.py")]
    return "\n".join(path.read_text() for path in sources)


@pytest.mark.parametrize(
    ("folder", "number", "workload"),
    [
        ("kvm_memfd", 1, "vmm"),
        ("kvm_memfd_qemu", 1, "qemu"),
        ("vfio_noiommu", 2, "vmm"),
        ("iommufd", 3, "vmm"),
        ("iommufd_qemu", 3, "qemu"),
    ],
)
def test_no_fact_is_without_a_reader(folder: str, number: int, workload: Workload) -> None:
    stage = load_stage(number, workload)
    trial = collect(RECORDED / folder / "main", witness=stage.witness)
    sides = [side.model_copy() for side in trial.sides]
    for side in sides:
        object.__setattr__(side, "facts", Facts(side.facts))
    watched = trial.model_copy(update={"sides": tuple(sides)})
    judge_trial(watched, stage)
    for control in stage.controls:
        if not control.reason.of_chain:
            control.reason.ask(watched)
    said = named()
    unread = {
        f"{side.name} {NUMBER.sub('N', key)}"
        for side in sides
        for key in side.facts
        if isinstance(side.facts, Facts)
        and key not in side.facts.read
        and not any(word in said for word in (f'{key}"', f"# {key}="))
    }
    assert {key for key in unread if not DESCRIBES.match(key.partition(" ")[2])} == set()

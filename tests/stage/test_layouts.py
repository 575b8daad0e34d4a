# SPDX-License-Identifier: GPL-2.0-only
"""How many different layouts of memory a run has tried."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from common.errors import UsageError
from common.record.evidence import Trial
from common.stage.layouts import layout, layouts_asked, tried
from common.stage.loading import load_stage

Recorded = Callable[..., Trial]


def placed(trial: Trial, *texts: str) -> Trial:
    """The trial with these facts kernel.text, side by side."""
    sides = [
        side.model_copy(update={"facts": side.facts | {"kernel.text": text}})
        for side, text in zip(trial.sides, texts, strict=True)
    ]
    return trial.model_copy(update={"sides": tuple(sides)})


def test_what_differs_in_one_place_is_another_layout(recorded: Recorded) -> None:
    main = recorded("main")
    one = placed(main, "0x1000000-0x1371bd7", "0x20400000-0x20771bd7")
    other = placed(main, "0x1000000-0x1371bd7", "0x20600000-0x20971bd7")
    assert layout(one) == layout(placed(main, "0x1000000-0x1", "0x20400000-0x2"))
    assert layout(one) != layout(other)
    said = tried([one, one, other])
    assert said.startswith("2 different in 3 main trials: text at 0x1000000 to 0x20400000, ")


def test_controls_do_not_count_and_silence_is_no_layout(recorded: Recorded) -> None:
    unknown = placed(recorded("main"), "unknown: no address", "0x20400000-0x20771bd7")
    assert layout(unknown) is None
    assert tried([unknown]) == tried([]) == "unknown: no kernel reported its address"
    control = recorded("control-byte-flipped")
    assert tried([placed(control, "0x1-0x2", "0x3-0x4")]).startswith("unknown")


def test_kernels_that_stay_where_they_are_have_one_layout() -> None:
    stage = load_stage(1)
    assert layouts_asked(5, stage, []) == 5
    assert layouts_asked(None, stage, ["nokaslr"]) is None
    with pytest.raises(UsageError, match="only one address"):
        layouts_asked(5, stage, ["nokaslr"])

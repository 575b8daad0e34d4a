# SPDX-License-Identifier: GPL-2.0-only
"""An option's value, in numbers and in the user's words."""

from __future__ import annotations

import pytest

from common.cli.parser import build_parser
from common.stage.declaration import Option
from common.stage.loading import load_stage

OPTIONS = {option.parameter: option for option in load_stage(3, "qemu").options}


@pytest.mark.parametrize(
    ("parameter", "value", "said"), [("guest_machine", 1, "q35"), ("guest_memory", 192, "192")]
)
def test_what_is_said_is_read_again(parameter: str, value: int, said: str) -> None:
    option = OPTIONS[parameter]
    assert option.said(value) == said
    assert option.value(said) == value
    parsed = build_parser().parse_args(["run", "3", option.flag, said])
    assert getattr(parsed, parameter) == value


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (OPTIONS["guest_machine"], "pc"),
        (OPTIONS["guest_machine"], "1"),
        (OPTIONS["vcpus"], "q35"),
        (OPTIONS["vcpus"], "9"),
    ],
)
def test_what_nobody_can_choose_is_refused(
    option: Option, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError):
        option.value(text)
    with pytest.raises(SystemExit) as left:
        build_parser().parse_args(["run", "3", "--workload", "qemu", option.flag, text])
    assert left.value.code == 2
    assert text in capsys.readouterr().err

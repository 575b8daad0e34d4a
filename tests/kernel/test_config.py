# SPDX-License-Identifier: GPL-2.0-only
"""Fragments: reading, merging, and telling what a .config does not grant."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel.errors import ConfigSymbolLost, SourceError
from kernel.make import config
from kernel.make.config import losses, merged, parse_config, requests


def fragment(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_values_of_all_kinds(tmp_path: Path) -> None:
    text = (
        "# why\n\nCONFIG_SMP=y\nCONFIG_NR_CPUS=64\n"
        'CONFIG_CMDLINE="a b=c # d"  # why\nCONFIG_HZ=100 # why\n'
        "# CONFIG_NET is not set\n# CONFIG_ is a comment\n"
    )
    wanted = requests([fragment(tmp_path, "a.config", text)])
    values = {symbol: request.value for symbol, request in wanted.items()}
    assert values == {
        "SMP": "y",
        "NR_CPUS": "64",
        "CMDLINE": '"a b=c # d"',
        "HZ": "100",
        "NET": "n",
    }
    assert wanted["NET"].line == 7


def test_a_later_fragment_wins_and_is_blamed(tmp_path: Path) -> None:
    base = fragment(tmp_path, "base.config", "CONFIG_NET=y\nCONFIG_SMP=y\n")
    stage = fragment(tmp_path, "stage.config", "# CONFIG_NET is not set\n")
    wanted = requests([base, stage])
    assert wanted["NET"].fragment == stage
    assert merged(wanted.values()) == "# CONFIG_NET is not set\nCONFIG_SMP=y\n"


@pytest.mark.parametrize(
    "line",
    ["SMP=y", "CONFIG_SMP", "CONFIG SMP=y", "source other.config", "CONFIG_A=", 'CONFIG_A="b'],
)
def test_a_line_that_says_nothing_is_an_error(tmp_path: Path, line: str) -> None:
    with pytest.raises(SourceError, match=r"bad\.config:1: .* not a line of a config fragment"):
        requests([fragment(tmp_path, "bad.config", f"{line}\n")])


def test_a_fragment_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot read the config fragment .*none\.config"):
        requests([tmp_path / "none.config"])


def test_losses(tmp_path: Path) -> None:
    text = (
        "CONFIG_A=y\nCONFIG_B=y\nCONFIG_M=y\n# CONFIG_C is not set\n# CONFIG_D is not set\n"
        "CONFIG_N=64\nCONFIG_E=n\n"
    )
    wanted = requests([fragment(tmp_path, "a.config", text)])
    final = "CONFIG_A=y\nCONFIG_M=m\n# CONFIG_C is not set\nCONFIG_D=y\nCONFIG_N=32\n"
    lost = {loss.request.symbol: loss for loss in losses(wanted.values(), final, {"B", "M", "D"})}
    assert set(lost) == {"B", "M", "D", "N"}
    assert lost["M"].actual == "'m'" and lost["N"].actual == "'32'"
    assert [lost[symbol].defined for symbol in ("B", "N")] == [True, False]
    assert str(lost["D"]).endswith("a.config:5: # CONFIG_D is not set, but the .config says 'y'")


def test_the_error_names_symbol_and_fragment(tmp_path: Path) -> None:
    wanted = requests([fragment(tmp_path, "stage.config", "CONFIG_FROB=y\n")])
    (tmp_path / "Kconfig").write_text("config FROB\n\tdepends on NOTHING\n")
    with pytest.raises(ConfigSymbolLost) as caught:
        config.require_granted(wanted, "", tmp_path, "toy")
    assert "CONFIG_FROB=y of stage.config did not survive olddefconfig: toy" in str(caught.value)
    assert caught.value.exit_status == 125


def test_defined_symbols(tmp_path: Path) -> None:
    (tmp_path / "Kconfig").write_text('config ONE\n\tbool "one"\nmenuconfig TWO # why\n')
    (tmp_path / "mm").mkdir()
    (tmp_path / "mm" / "Kconfig.debug").write_text("if TWO\n config THREE\nendif\n# config FOUR\n")
    assert config.defined_symbols(tmp_path) == {"ONE", "TWO", "THREE"}


def test_parse_config_ignores_prose() -> None:
    assert parse_config("# CONFIG_A was set once\n#CONFIG_B=y\n") == {}

# SPDX-License-Identifier: GPL-2.0-only
"""The machine's clocks against the host's; no machine."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from common.host.tsc import host_tsc_khz
from common.record.clocks import Reading, drift
from common.run import told_clock
from common.run.told_clock import clock_words

SECOND = 1_000_000_000


def clock(*, rate: float = 1.0, leap: int = 0, late: int = 0) -> list[Reading]:
    """Forty readings in two seconds of the clock; stamps are late by up to `late` ns."""
    late_by = random.Random(1)
    found = []
    for n in range(40):
        own = n * SECOND // 20
        host = round(own / rate) + 7 * SECOND - (leap if n >= 20 else 0)
        found.append(Reading(own, host + late_by.randrange(late + 1)))
    return found


def ms(readings: list[Reading]) -> float:
    found = drift(readings)
    assert found is not None
    return found.ms


def test_late_stamps_are_no_drift() -> None:
    assert abs(ms(clock())) < 0.001
    assert abs(ms(clock(late=SECOND // 2))) < 60


@pytest.mark.parametrize(("rate", "about"), [(2.0, -500), (0.5, 1000), (0.05, 19000)])
def test_a_clock_that_is_told_wrong(rate: float, about: int) -> None:
    assert ms(clock(rate=rate)) == pytest.approx(about, rel=0.06)


def test_a_clock_that_leaps() -> None:
    assert ms(clock(leap=53 * SECOND)) == pytest.approx(-53000, rel=0.01)


def test_what_is_said_at_one_time_only_shows_nothing() -> None:
    assert drift([]) is None
    assert drift([Reading(1, 2)]) is None
    assert drift([Reading(1, 2), Reading(1, 3)]) is None


def test_the_hosts_tsc_is_a_plausible_one() -> None:
    khz = host_tsc_khz()
    assert khz is None or 100_000 < khz < 10_000_000


def test_kernels_are_told_their_delay_loop_where_their_tick_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(told_clock, "host_tsc_khz", lambda: 2_500_000)
    slow, quick, without = (tmp_path / name for name in ("slow", "quick", "without"))
    slow.write_text("# CONFIG_HZ_100 is not set\nCONFIG_HZ=250\n")
    quick.write_text("CONFIG_HZ_1000=y\nCONFIG_HZ=1000\n")
    without.write_text("# CONFIG_HZ is not set\n")
    assert clock_words("tsc_early_khz", [slow, slow]) == ("tsc_early_khz=2500000", "lpj=10000000")
    assert clock_words("tsc_early_khz", [quick]) == ("tsc_early_khz=2500000", "lpj=2500000")
    for pair in ([slow, quick], [slow, None], [None], [without, slow]):
        assert clock_words("tsc_early_khz", pair) == ("tsc_early_khz=2500000",)
    monkeypatch.setattr(told_clock, "host_tsc_khz", lambda: None)
    assert clock_words("tsc_early_khz", [slow]) == ()

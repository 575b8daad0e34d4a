# SPDX-License-Identifier: GPL-2.0-only
"""Results out of KTAP as KUnit and the kselftest harness write it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest

from common.cli import kernels as verbs
from common.cli.parser import main
from common.errors import Exit
from common.suites.kernel_ktap import results
from common.suites.kernel_selftests import Suites, counts, fallen, read_results

KUNIT = """\
KTAP version 1
1..2
    KTAP version 1
    # Subtest: amdv1_iommu_test
    # module: iommu_pt
    1..2
        KTAP version 1
        # Subtest: test_map_simple
        ok 1 fmt_0
        not ok 2 fmt_1
    # test_map_simple: pass:1 fail:1 skip:0 total:2
    not ok 1 test_map_simple
    ok 2 test_unmap_split # SKIP one page size
# amdv1_iommu_test: pass:0 fail:1 skip:1 total:2
not ok 1 amdv1_iommu_test
    KTAP version 1
    # Subtest: vtdss_iommu_test
    1..1
    ok 1 test_map_simple
ok 2 vtdss_iommu_test
"""

KSELFTEST = """\
TAP version 13
1..3
# Starting 3 tests from 2 test cases.
#  RUN           iommufd.simple_close ...
#            OK  iommufd.simple_close
ok 1 iommufd.simple_close
not ok 2 iommufd_ioas.no_domain.ioas_map
ok 3 iommufd_mock.huge # SKIP no huge pages
# FAILED: 1 / 3 tests passed.
"""


def test_nested_tests_are_named_after_all_that_they_are_in() -> None:
    assert results(KUNIT.splitlines()) == {
        "amdv1_iommu_test.test_map_simple.fmt_0": "ok",
        "amdv1_iommu_test.test_map_simple.fmt_1": "not ok",
        "amdv1_iommu_test.test_unmap_split": "skip",
        "vtdss_iommu_test.test_map_simple": "ok",
    }


def test_a_program_has_no_nesting() -> None:
    assert results(KSELFTEST.splitlines()) == {
        "iommufd.simple_close": "ok",
        "iommufd_ioas.no_domain.ioas_map": "not ok",
        "iommufd_mock.huge": "skip",
    }


def test_what_broke_off_keeps_what_it_had() -> None:
    cut = KUNIT[: KUNIT.index("    not ok 1 test_map_simple")]
    assert results(cut.splitlines()) == {"fmt_0": "ok", "fmt_1": "not ok"}


def test_a_test_that_fails_or_is_gone_has_fallen() -> None:
    before = {"KUnit": results(KUNIT.splitlines()), "iommufd": results(KSELFTEST.splitlines())}
    assert fallen(before, before) == []
    after = {"KUnit": results(KUNIT.replace("ok 1 fmt_0", "not ok 1 fmt_0").splitlines())}
    assert fallen(before, after) == [
        "KUnit amdv1_iommu_test.test_map_simple.fmt_0: not ok",
        "iommufd iommufd.simple_close: gone",
    ]


@pytest.mark.parametrize(("end", "ended"), [("exit=1", "ok"), ("signal=11", "not ok")])
def test_a_program_that_is_killed_has_not_ended(tmp_path: Path, end: str, ended: str) -> None:
    lines = ["# program=iommufd", *KSELFTEST.splitlines(), f"# {end}", "# program=iommufd_fail_nth"]
    for name, texts in (("console", KUNIT.splitlines()), ("dialogue", lines)):
        stamped = "".join(f"{json.dumps([0, text])}\n" for text in texts)
        (tmp_path / f"{name}.jsonl").write_text(stamped)
    found = read_results(tmp_path)
    assert found["programs"] == {"iommufd": ended, "iommufd_fail_nth": "not ok"}
    assert found["iommufd"] == results(KSELFTEST.splitlines())
    assert found["iommufd_fail_nth"] == {}


def test_counts() -> None:
    assert counts(results(KUNIT.splitlines())) == [2, 1, 1]


def without_machine(
    monkeypatch: pytest.MonkeyPatch, folder: Path, suites: Sequence[Suites]
) -> None:
    monkeypatch.setattr(verbs, "Hypervisor", lambda _uri: nullcontext())
    monkeypatch.setattr(verbs, "probe", lambda _arch, **_words: None)
    monkeypatch.setattr(verbs, "new_run_folder", lambda *_words: folder)
    monkeypatch.setattr(verbs, "run_selftests", lambda *_words: suites)


@pytest.mark.parametrize(
    ("after", "status"),
    [
        (KSELFTEST, Exit.PASS),
        (KSELFTEST.replace("ok 1 iommufd.simple", "not ok 1 iommufd.simple"), Exit.FAIL),
        (KSELFTEST.replace("not ok 2", "ok 2"), Exit.PASS),
    ],
)
def test_a_fallen_test_is_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, after: str, status: Exit
) -> None:
    suites = [{"iommufd": results(text.splitlines())} for text in (KSELFTEST, after)]
    without_machine(monkeypatch, tmp_path, suites)
    assert main(["kernel", "selftests"]) == status


def test_no_test_at_all_is_no_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_machine(monkeypatch, tmp_path, [{"KUnit": {}}] * 2)
    assert main(["kernel", "selftests"]) == Exit.HARNESS

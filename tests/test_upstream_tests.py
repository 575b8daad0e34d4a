# SPDX-License-Identifier: GPL-2.0-only
"""What is read in the console of upstream's own tests."""

from __future__ import annotations

import pytest

from kernel.upstream_tests.results import counts, differences, results

CONSOLE = """\
[    0.812345] KTAP version 1
[    0.812400] 1..1
[    0.812500]     KTAP version 1
[    0.812501]     # Subtest: generic_pt_fmt_vtdss_iommu_test
[    0.812502]     # module: generic_pt
[    0.812503]     1..2
[    0.820000]     ok 1 test_map_simple
[    0.830000]     ok 2 test_mixed # SKIP not this format
[    0.840000] # generic_pt_fmt_vtdss_iommu_test: pass:1 fail:0 skip:1 total:2
[    0.840001] ok 1 generic_pt_fmt_vtdss_iommu_test
TAP version 13
1..3
#  RUN           iommufd.simple_close ...
#            OK  iommufd.simple_close
ok 1 iommufd.simple_close
ok 2 iommufd.huge # SKIP no huge pages
not ok 3 iommufd.last
# Totals: pass:1 fail:1 xfail:0 xpass:0 skip:1 error:0
# iommufd: status 256
"""


def test_each_test_has_its_end() -> None:
    found = results(CONSOLE)
    assert found == {
        "KUnit generic_pt_fmt_vtdss_iommu_test.test_map_simple": "ok",
        "KUnit generic_pt_fmt_vtdss_iommu_test.test_mixed": "skipped",
        "iommufd iommufd.simple_close": "ok",
        "iommufd iommufd.huge": "skipped",
        "iommufd iommufd.last": "not ok",
    }
    assert (counts(found, "KUnit"), counts(found, "iommufd")) == ([1, 1, 0], [1, 1, 1])


def test_what_ends_otherwise_is_named() -> None:
    before = results(CONSOLE)
    after = results(CONSOLE.replace("not ok 3 iommufd.last", "ok 3 iommufd.last\nok 4 iommufd.new"))
    assert differences(before, before) == []
    assert differences(before, after) == [
        "iommufd iommufd.last: not ok, with the series ok",
        "iommufd iommufd.new: absent, with the series ok",
    ]


def test_a_console_that_breaks_off_is_no_result() -> None:
    with pytest.raises(ValueError, match="ends before"):
        results(CONSOLE[: CONSOLE.index("# iommufd")])

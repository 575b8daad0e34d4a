# SPDX-License-Identifier: GPL-2.0-only
"""What keeps the incoming kernel off the outgoing one's text, and what TCG says of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.incoming_boot import table
from common.host.accel import Accelerator
from common.judge.stored_run import opened
from common.paths import CHECKOUT
from common.record.qemu import jit
from common.report.text import report_text
from common.run.kernels import Kernels
from common.run.setup import RunSetup, TrialPlan
from common.run.trial import _cmdline
from common.stage.loading import load_stage

IOMEM = """\
00000000-00000fff : Reserved
00100000-2ffdffff : System RAM
  0e600000-0e971bd7 : Kernel code
  0ea00000-0eb75fff : Kernel rodata
"""
UNTOLD = "00000000-00000000 : System RAM\n  00000000-00000000 : Kernel code\n"

DRIVER = """\
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "workload.h"
#define fopen(path, mode) (fopen)(getenv("IOMEM"), mode)
#include "stale_text.c"
bool param_get(const char *name, char *value, size_t size)
{
	char *set = getenv(name);

	if (set)
		snprintf(value, size, "%s", set);
	return set;
}
enum side param_side(void) { return getenv("side") ? SIDE_INCOMING : SIDE_OUTGOING; }
void dialogue_bail(const char *format, ...) { puts(format); exit(1); }
void fact(const char *key, const char *format, ...)
{
	va_list args;

	printf("# %s=", key);
	va_start(args, format);
	vprintf(format, args);
}
int main(void)
{
	char words[64];

	stale_text_words(words, sizeof(words));
	puts(words);
	print_kernel_text();
}
"""

Program = Callable[..., list[str]]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """stale_text.c, built for this host: the words for the next kernel, and the fact."""
    folder = tmp_path_factory.mktemp("stale")
    (folder / "driver.c").write_text("#include <stdarg.h>\n" + DRIVER)
    sources = CHECKOUT / "common" / "workload" / "core"
    machine = CHECKOUT / "common" / "workload" / "arch" / "x86_64" / "core"
    command = ["cc", "-D_GNU_SOURCE", "-Wall", "-Werror", f"-I{sources}", f"-I{machine}"]
    command += ["driver.c", "-o", "it"]
    subprocess.run(command, cwd=folder, check=True)

    def run(iomem: str, **parameters: str) -> list[str]:
        (folder / "iomem").write_text(iomem)
        environment = {"IOMEM": str(folder / "iomem"), **parameters}
        done = subprocess.run(
            [folder / "it"], env=environment, capture_output=True, text=True, check=False
        )
        return done.stdout.splitlines()

    return run


def test_the_text_is_kept_out_in_whole_pages(program: Program) -> None:
    words, told = program(IOMEM, stale_text="avoid")
    assert words == " memmap=0x372000$0xe600000"
    assert told == "# kernel.text=0xe600000-0xe971bd7"


@pytest.mark.parametrize("iomem", [UNTOLD, "00100000-2ffdffff : System RAM\n", ""])
def test_a_kernel_that_does_not_tell_is_said_to_and_no_failure(
    program: Program, iomem: str
) -> None:
    words, told = program(iomem, stale_text="avoid")
    assert words == ""
    assert told.startswith("# kernel.text=unknown: ")


@pytest.mark.parametrize("came_by_kexec", ["side", "uncounted"])
def test_a_text_in_scratch_memory_is_left_alone(program: Program, came_by_kexec: str) -> None:
    words, told = program(IOMEM, stale_text="avoid", **{came_by_kexec: "done"})
    assert (words, told) == ("", "# kernel.text=0xe600000-0xe971bd7")


def test_nothing_is_done_unasked(program: Program) -> None:
    assert program(IOMEM) == ["", "# kernel.text=0xe600000-0xe971bd7"]
    assert program(IOMEM, stale_text="keep")[0] == ""
    assert program(IOMEM, stale_text="avoyd") == ["%s:%d: %s: stage.stale_text=%s"]


@pytest.mark.parametrize(
    ("accelerator", "word"), [("tcg", ["stage.stale_text=avoid"]), ("kvm", [])]
)
def test_it_is_asked_for_where_the_cpu_is_emulated(
    accelerator: str, word: list[str], tmp_path: Path
) -> None:
    nothing: Any = None
    (tmp_path / "vmlinux").write_bytes(b"memfd-v2\0")
    kernel: Any = SimpleNamespace(config=None, patches=(), vmlinux=tmp_path / "vmlinux")
    setup = RunSetup(
        stage=load_stage(1),
        kernels=Kernels(outgoing=kernel, incoming=kernel),
        accelerator=Accelerator(accelerator, "asked for"),
        hypervisor=nothing,
        options={"guest_memory": 64, "vcpus": 1, "folios": 1},
        folder=nothing,
    )
    words = _cmdline(setup, TrialPlan("main"), "0123456789abcdef")
    assert [word for word in words if "stale_text" in word] == word


SAID = "Statistics:\nTB flush count      0\nTB invalidate count {}\nTLB full flushes    0\n"


def answers(*counts: tuple[str, int]) -> str:
    lines = [
        {"t": 1, "ms": 20.5, "cpu_s": 1.0, "word": w, "said": SAID.format(n)} for w, n in counts
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.mark.parametrize(
    ("counts", "dropped"),
    [
        ([(jit.FIRST, 9000), (jit.LAST, 18000)], (9000,)),
        ([(jit.FIRST, 1), (jit.LAST, 3), (jit.FIRST, 4), (jit.LAST, 9)], (2, 5)),
        ([(jit.FIRST, 1), (jit.LAST, 3), (jit.LAST, 9)], (2,)),
        ([(jit.FIRST, 9000)], ()),
        ([(jit.LAST, 9000)], ()),
    ],
)
def test_drops_are_counted_for_each_update(
    tmp_path: Path, counts: list[tuple[str, int]], dropped: tuple[int, ...]
) -> None:
    (tmp_path / "jit.jsonl").write_text(answers(*counts))
    assert jit.invalidations(tmp_path) == dropped


def test_no_answer_is_no_measurement(tmp_path: Path) -> None:
    assert jit.invalidations(tmp_path) == ()
    line = {
        "t": 1,
        "ms": 1.0,
        "cpu_s": None,
        "word": jit.FIRST,
        "said": "no answer: domain is not running\n",
    }
    (tmp_path / "jit.jsonl").write_text(json.dumps(line) + "\n")
    assert jit.invalidations(tmp_path) == ()


@pytest.mark.parametrize("counted", [(), (8674,)])
def test_the_report_tells_of_them_where_they_were_counted(
    run_folder: Path, counted: tuple[int, ...]
) -> None:
    with opened(str(run_folder)) as one:
        main = one.run.trials[0].model_copy(update={"tb_invalidations": counted})
        run = one.run.model_copy(update={"trials": (main, *one.run.trials[1:])})
        text = report_text(run, one.verdict, one.stage)
    said = "Translations that TCG dropped from first message to last: 8674\n"
    assert (said in text, "Translations that TCG dropped" in text) == (bool(counted),) * 2


def test_the_table_has_a_row_for_each_set_up() -> None:
    found = [
        {"stage": 1, "setup": setup, "boot_s": boot, "dropped": dropped, "asking_ms": 30.0}
        | {"cpu_s": boot / 2}
        for setup, boot, dropped in (("keep", 1.0, 8000), ("keep", 4.0, 60000), ("avoid", 2, 8100))
    ]
    found.append({"stage": 1, "setup": "avoid", "ended": "timeout"})
    rows = [" ".join(line.split()) for line in table(found).splitlines()]
    assert rows[2:] == [
        "1 off the old text 1 1 2.00 2.00 1.00 1.00 1.00 1.00 8100 8100 8100 30 30",
        "1 as it was 2 0 2.50 4.00 1.60 1.25 2.00 1.60 8000 34000 60000 30 30",
    ]

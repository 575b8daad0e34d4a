# SPDX-License-Identifier: GPL-2.0-only
"""Kernels that die before their console: what is told of them, from what the host saw in RAM.

tests/recorded/unheard/ has looks at real ones; the trial around them is the recorded main one, cut
off where the console of the outgoing kernel ends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import UsageError
from common.judge.stored_run import opened
from common.judge.verdict import judge_trial
from common.record.cpus.last_look import (
    FILE,
    LOG,
    LastLook,
    death,
    standing,
)
from common.record.cpus.ram_log import RamLog
from common.record.cpus.samples import CpuSample, Sample
from common.record.cpus.state import parse_registers
from common.record.evidence import Trial, collect
from common.record.qemu.reset import registers_at_triple_fault
from common.stage.loading import load_stage
from tests.recorded_trial import KVM_MEMFD, RECORDED
from tests.stored import store_run, write_record

FOLDER = RECORDED / "unheard"
STAGE = load_stage(1)
Edit = Callable[[dict[str, object]], object]


def look(name: str) -> LastLook:
    return LastLook.model_validate_json((FOLDER / f"{name}.json").read_text())


def unheard(folder: Path, name: str, *, ended: str, seen: LastLook | None = None) -> Path:
    """A run whose incoming kernel did not come to its console, and was seen as `name` says."""
    run = store_run(folder, (KVM_MEMFD / "main", "main"))
    trial = run / "main"
    for line, last in (("console", "Starting new kernel"), ("dialogue", '"# kexec"')):
        for suffix in ("log", "jsonl"):
            path = trial / f"{line}.{suffix}"
            lines = path.read_text().splitlines(keepends=True)
            end = next(n for n, text in enumerate(lines) if last.strip('"') in text)
            path.write_text("".join(lines[: end + 1]))
    one = seen or look(name)
    setting = json.loads((trial / "trial.json").read_text())
    setting["incoming"]["build_id"] = one.build_id or "00"
    setting |= {"ended": ended, "ended_detail": "kexec and boot of the incoming kernel: silence"}
    (trial / "trial.json").write_text(json.dumps(setting))
    (trial / FILE).write_text(one.model_dump_json())
    if one.log.lines:
        (trial / LOG).write_text(one.log_text())
    write_record(run)
    return run


def collected(run: Path) -> Trial:
    return collect(run / "main", witness=STAGE.witness)


def test_a_fault_before_the_console_is_a_crash_with_its_place(tmp_path: Path) -> None:
    trial = collected(unheard(tmp_path / "run", "setup-arch-fault", ended="crashed"))
    verdict = judge_trial(trial, STAGE)
    assert (verdict.status, verdict.why) == (
        "CRASHED",
        "incoming kernel: setup_arch (arch/x86/kernel/setup.c:1189), page fault at"
        " 0xffff8f0000000010, before its console",
    )
    seen = {answer.check: answer.outcome for answer in verdict.answers}
    assert seen["no_splat"].status == "FAIL"
    assert seen["no_splat"].evidence == LOG


def test_a_loop_is_a_timeout_that_names_its_function(tmp_path: Path) -> None:
    trial = collected(unheard(tmp_path / "run", "loop", ended="timeout"))
    verdict = judge_trial(trial, STAGE)
    assert verdict.status == "TIMEOUT"
    assert verdict.why.endswith(
        "CPU 0 was in setup_arch (arch/x86/include/asm/vdso/processor.h:13), interrupts off"
    )
    seen = {answer.check: answer.outcome for answer in verdict.answers}
    assert (seen["no_splat"].status, seen["no_splat"].evidence) == (
        "NO DATA",
        "the incoming kernel had no console",
    )


def test_a_first_kernel_without_a_console_is_no_data_either(recorded: Callable[..., Trial]) -> None:
    trial = recorded("main", edit=lambda _lines: [], setting={"ended": "timeout"})
    seen = {answer.check: answer.outcome for answer in judge_trial(trial, STAGE).answers}
    assert (seen["no_splat"].status, seen["no_splat"].evidence) == (
        "NO DATA",
        "the outgoing kernel had no console",
    )


def changed(found: LastLook, **cpu: object) -> LastLook:
    """The look, with these registers in all CPUs and samples; no log."""
    data = json.loads(found.model_dump_json())
    for sample in data["samples"]:
        for one in sample["cpus"]:
            one["cpu"] |= cpu
    data["log"] = {"source": "none", "lines": []}
    return LastLook.model_validate_json(json.dumps(data))


def test_what_is_dead_and_what_is_only_slow() -> None:
    loop = look("loop")
    assert death(loop) is None and standing(loop)
    assert death(changed(loop, halted=True, rflags=0x46)) is not None
    idle = changed(loop, halted=True, rflags=0x246)
    assert death(idle) is None
    first = loop.model_copy(update={"samples": loop.samples[:1]})
    assert death(changed(first, halted=True, rflags=0x46)) is None


def test_a_halt_before_there_is_a_kernel(tmp_path: Path) -> None:
    """As the decompressor halts where an image is damaged (boot/compressed/error.c)."""
    seen = changed(look("loop"), halted=True, rflags=0x46, rip=0x2345678)
    seen = seen.model_copy(update={"build_id": None, "names": {}})
    trial = collected(unheard(tmp_path / "run", "loop", ended="crashed", seen=seen))
    assert judge_trial(trial, STAGE).why == (
        "incoming kernel: halted with interrupts off at 0x2345678, in no kernel's text, before its"
        " console"
    )


def faulting(turns: int) -> LastLook:
    """A CPU that goes to and fro between an instruction and its exception, `turns` times."""
    loop = look("loop")
    at, handler = loop.samples[0].cpus[0].cpu.pc, 0xFFFF_FFFF_A30F_0000
    samples = []
    for number in range(max(12, turns + 1)):
        sample = loop.samples[0]
        cpus = list(sample.cpus)
        away = number % 2 == 1 and number <= turns
        cpu = cpus[0].cpu.model_copy(update={"rip": handler if away else at, "cr2": 0x10})
        cpus[0] = cpus[0].model_copy(update={"cpu": cpu, "trapped": (at,) if away else ()})
        samples.append(sample.model_copy(update={"cpus": tuple(cpus)}))
    return loop.model_copy(update={"samples": tuple(samples), "log": RamLog(source="none")})


def test_an_instruction_that_faults_for_good() -> None:
    found = death(faulting(11))
    assert found is not None
    assert (found.what, found.place) == (
        "page fault at 0x10 again and again",
        "setup_arch+0x31a/0x95e",
    )
    assert death(faulting(1)) is None, "a machine that stands still is not known to be dead"
    few = faulting(11)
    assert death(few.model_copy(update={"samples": few.samples[:6]})) is None


def test_a_reset_on_the_way_is_a_crash(tmp_path: Path) -> None:
    seen = look("loop").model_copy(update={"why": "reset", "samples": (), "cpu": None})
    trial = collected(unheard(tmp_path / "run", "loop", ended="rebooted", seen=seen))
    verdict = judge_trial(trial, STAGE)
    assert verdict.status == "CRASHED"
    assert verdict.why.startswith("incoming kernel: the machine was reset; its log")


def test_a_triple_fault_is_told_with_its_place(tmp_path: Path) -> None:
    loop = look("loop")
    seen = loop.model_copy(update={"why": "reset", "samples": loop.samples[-1:]})
    trial = collected(unheard(tmp_path / "run", "loop", ended="rebooted", seen=seen))
    verdict = judge_trial(trial, STAGE)
    assert verdict.status == "CRASHED"
    assert verdict.why.startswith("incoming kernel: setup_arch (")
    assert "), triple fault; its log" in verdict.why


def after_vmrun() -> LastLook:
    """A real triple fault, that of test_reset.py."""
    log = (RECORDED / "triple_fault" / "vmexit.log").read_text().splitlines()
    cpus = parse_registers(registers_at_triple_fault(log) or "")
    return LastLook(
        t=1,
        why="reset",
        samples=(Sample(t=1, point="reset", cpus=tuple(CpuSample(cpu=cpu) for cpu in cpus)),),
        triple_fault=True,
        cpu=0,
        build_id=None,
        log=RamLog(source="none"),
        names={f"{cpus[0].rip:#x}": "__svm_vcpu_run+0x9c/0x140"},
        lines={"__svm_vcpu_run+0x9c/0x140": "arch/x86/kvm/svm/vmenter.S:182"},
    )


@pytest.mark.parametrize("accelerator", ["tcg", "kvm"])
def test_a_triple_fault_beside_a_guest_is_the_kernels(tmp_path: Path, accelerator: str) -> None:
    """QEMU's TCG could cause it on the first CPU alone, where no guest runs."""
    run = unheard(tmp_path / "run", "loop", ended="rebooted", seen=after_vmrun())
    setting = json.loads((run / "main" / "trial.json").read_text())
    setting["host"]["accelerator"] = accelerator
    (run / "main" / "trial.json").write_text(json.dumps(setting))
    verdict = judge_trial(collected(run), STAGE)
    assert verdict.status == "CRASHED"
    assert "__svm_vcpu_run (arch/x86/kvm/svm/vmenter.S:182), triple fault" in verdict.why


def test_a_crash_that_nothing_shows_is_an_error(tmp_path: Path) -> None:
    seen = changed(look("loop"), halted=False)
    trial = collected(unheard(tmp_path / "run", "loop", ended="crashed", seen=seen))
    assert judge_trial(trial, STAGE).status == "ERROR"


def test_judge_comes_to_the_same(tmp_path: Path) -> None:
    run = unheard(tmp_path / "run", "setup-arch-fault", ended="crashed")
    with opened(str(run)) as stored:
        assert stored.verdict.exit == 5


def edited(run: Path, edit: Edit) -> None:
    path = run / "main" / FILE
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    "edit",
    [
        lambda data: data.update(why="because"),
        lambda data: data.pop("log"),
        lambda data: data.update(samples=[{}]),
        lambda data: data.update(t="x"),
        lambda data: data.update(more=1),
        lambda data: data["samples"][0]["cpus"][0].update(cpu=[]),
    ],
)
def test_a_damaged_look_is_refused(tmp_path: Path, edit: Edit) -> None:
    run = unheard(tmp_path / "run", "setup-arch-fault", ended="crashed")
    edited(run, edit)
    with pytest.raises(UsageError, match="damaged trial"):
        collected(run)


def test_the_log_for_people_is_that_of_the_look(tmp_path: Path) -> None:
    run = unheard(tmp_path / "run", "setup-arch-fault", ended="crashed")
    (run / "main" / LOG).write_text("[    0.000000] all is well\n")
    write_record(run)
    said = re.escape(f"main/{LOG} is not what {FILE} has")
    with pytest.raises(UsageError, match=said), opened(str(run)):
        pass

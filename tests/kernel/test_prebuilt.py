# SPDX-License-Identifier: GPL-2.0-only
"""What is read of a prebuilt image before it is booted; a script stands in for the unpacker."""

from __future__ import annotations

import gzip
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from common.judge.verdict import judge_trial
from common.record.cpus.samples import Sample
from common.record.evidence import Trial
from common.record.setting import KernelFacts
from common.run.kernels import kernels_of
from common.stage.configured import configured_as_recorded
from common.stage.kernel_choice import KernelChoice, Origin, with_kernels
from common.stage.loading import load_stage
from kernel.cache import Kernel
from kernel.errors import MissingKconfig, SourceError
from kernel.image.prebuilt import Prebuilt, embedded_config, prebuilt, read_header

CONFIG = "CONFIG_LIVEUPDATE=y\n# CONFIG_KVM is not set\n"
LUO = b"\0luo-v5\0"
TOOLS = cast(Kernel, None)  # only kept


def bzimage(release: bytes = b"7.3.4-test (me@host) #1 SMP", *, protocol: int = 0x20F) -> bytes:
    """A boot header as Documentation/arch/x86/boot.rst has it, and nothing behind it."""
    data = bytearray(0x1000)
    data[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", data, 0x206, protocol)
    struct.pack_into("<H", data, 0x20E, 0x600)
    data[0x211] = 1
    struct.pack_into("<H", data, 0x236, 1)
    data[0x800 : 0x800 + len(release)] = release
    return bytes(data)


@pytest.fixture(scope="module")
def elf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An ELF file with a build id."""
    if not shutil.which("gcc"):
        pytest.skip("no gcc")
    program = tmp_path_factory.mktemp("elf") / "a.so"
    command = ["gcc", "-shared", "-nostdlib", "-xc", "-", "-Wl,--build-id=sha1", "-o", str(program)]
    subprocess.run(command, input=b"int a;\n", check=True)
    return program.read_bytes()


Look = Callable[[bytes], Prebuilt]


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Look:
    """What `prebuilt` makes of an image in which that vmlinux is packed."""
    monkeypatch.setenv("KEXEC_STAGES_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bzImage").write_bytes(bzimage())
    fragment = tmp_path / "stage.config"
    fragment.write_text("CONFIG_LIVEUPDATE=y\nCONFIG_KVM=y\n")
    unpacker = tmp_path / "extract-vmlinux"
    unpacker.write_text(f"#!/bin/sh\ncat {tmp_path}/vmlinux\n")
    unpacker.chmod(0o755)

    def unpacked(vmlinux: bytes) -> Prebuilt:
        (tmp_path / "vmlinux").write_bytes(vmlinux)
        return prebuilt(tmp_path / "bzImage", [fragment], tools=TOOLS, scripts=tmp_path)

    return unpacked


def test_release_build_id_and_that_the_rest_is_unknown(look: Look, elf: bytes) -> None:
    kernel = look(elf + LUO)
    assert kernel.release == "7.3.4-test"
    assert len(kernel.build_id) == 40
    assert (kernel.config, kernel.losses) == (None, ())
    assert kernel.source.endswith("bzImage, source unknown")


def test_the_embedded_config_is_kept_and_held_against_the_stage(look: Look, elf: bytes) -> None:
    packed = b"IKCFG_ST" + gzip.compress(CONFIG.encode()) + b"IKCFG_ED"
    kernel = look(elf + LUO + packed)
    assert kernel.config
    assert kernel.config.read_text() == CONFIG
    assert [str(loss.request) for loss in kernel.losses] == ["CONFIG_KVM=y"]


def test_a_damaged_embedded_config_is_none() -> None:
    assert embedded_config(b"IKCFG_ST" + b"\x1f\x8b..." + b"IKCFG_ED") is None


def test_a_kernel_without_luo_is_skipped_by_name(look: Look, elf: bytes) -> None:
    with pytest.raises(MissingKconfig) as error:
        look(elf)
    assert error.value.exit_status == 4
    assert "(Linux 7.3.4-test, a prebuilt image) has no CONFIG_LIVEUPDATE" in str(error.value)


def test_an_image_without_build_id_is_refused(look: Look) -> None:
    with pytest.raises(SourceError, match="no GNU build id"):
        look(b"no ELF" * 40 + LUO)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"#!/bin/sh\n", "no Linux boot header"),
        (bzimage()[:0x210], "no Linux boot header"),
        (bzimage(protocol=0x20B), "not a bzImage for x86-64"),
        (bzimage(release=b""), "does not name its kernel version"),
    ],
)
def test_what_is_no_bzimage(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "image").write_bytes(data)
    with pytest.raises(SourceError, match=says):
        read_header(tmp_path / "image")


def test_what_is_no_image_waits_for_no_build(tmp_path: Path) -> None:
    choice = KernelChoice(outgoing=Origin("image", str(tmp_path)), incoming=Origin("image", "/no"))
    with pytest.raises(SourceError, match="Is a directory"):
        kernels_of(with_kernels(load_stage(1), choice), choice)


def on_one_image(trial: Trial, *, declared: bool) -> Trial:
    """The trial as if its outgoing kernel had been both; `declared`: the user gave one image."""
    kernel: KernelFacts = trial.setting.outgoing
    facts = {key: value for key, value in trial.sides[0].facts.items() if key.startswith("kernel.")}
    for own in ("kernel.boot_id", "kernel.cmdline", "kernel.text"):
        facts.pop(own)
    after = trial.sides[1].model_copy(update={"facts": trial.sides[1].facts | facts})
    boots = [
        trial.console.boots[0],
        trial.console.boots[1].model_copy(update={"release": kernel.release}),
    ]
    setting = {"incoming": kernel, "one_kernel": declared}
    other, samples = trial.setting.incoming, []
    for sample in trial.samples:
        text = sample.model_dump_json().replace(other.build_id, kernel.build_id)
        text = text.replace(
            other.release.encode().hex() + "20", kernel.release.encode().hex() + "20"
        )
        samples.append(Sample.model_validate_json(text))
    return trial.model_copy(
        update={
            "setting": trial.setting.model_copy(update=setting),
            "sides": (trial.sides[0], after),
            "samples": tuple(samples),
            "console": trial.console.model_copy(update={"boots": tuple(boots)}),
        }
    )


def test_one_image_on_both_sides_is_judged_by_what_can_be_told(
    recorded: Callable[..., Trial],
) -> None:
    trial = on_one_image(recorded("main"), declared=True)
    stage = configured_as_recorded(load_stage(1), trial.setting)
    verdict = judge_trial(trial, stage)
    assert verdict.status == "PASS", verdict.why
    assert not {"other_kernel", "build_ids"} & {check.name for check in stage.checks}
    assert "Both sides are one image" in stage.not_claimed[0]
    assert "same-kernel" not in {control.name for control in stage.controls}
    # every check that is left has a control that breaks it, but for the one that is new
    broken = frozenset().union(*(control.breaks for control in stage.controls))
    assert {check.name for check in stage.checks} - broken == {"one_build"}


def test_nobody_gets_it_without_having_asked(recorded: Callable[..., Trial]) -> None:
    trial = on_one_image(recorded("main"), declared=False)
    stage = configured_as_recorded(load_stage(1), trial.setting)
    assert judge_trial(trial, stage).status == "FAIL"


def test_another_kernel_than_the_image_is_noticed(recorded: Callable[..., Trial]) -> None:
    trial = on_one_image(recorded("main"), declared=True)
    stage = configured_as_recorded(load_stage(1), trial.setting)
    other = trial.sides[1]
    facts = other.facts | {"kernel.build_id": "0" * 40}
    changed = trial.model_copy(
        update={"sides": (trial.sides[0], other.model_copy(update={"facts": facts}))}
    )
    verdict = judge_trial(changed, stage)
    assert (verdict.status, verdict.why.split(":")[0]) == ("FAIL", "one_build")

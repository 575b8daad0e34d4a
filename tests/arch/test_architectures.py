# SPDX-License-Identifier: GPL-2.0-only
"""Each architecture is whole: data, fragment, C; a machine and a stage of it are as it says."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from common.arch.architecture import Architecture
from common.arch.arm64 import ARM64
from common.arch.known import ARCHITECTURES, DEFAULT
from common.arch.x86_64 import X86_64
from common.cli.parser import main
from common.errors import CannotRunHere, UsageError
from common.host.accel import Accelerator, probe
from common.machine.domain import MachineSpec, domain_xml
from common.paths import CHECKOUT
from common.run.kernels import base_configs
from common.run.setup import chosen_cpu
from common.stage.loading import all_stages, load_stage, unbroken
from common.stage.on_architecture import not_there, on_architecture

GIB = 1 << 30
EVERY = pytest.mark.parametrize("arch", ARCHITECTURES.values(), ids=lambda arch: arch.name)


@EVERY
def test_its_files_elsewhere_are_there(arch: Architecture) -> None:
    assert all(path.exists() for path in base_configs(arch))
    folder = CHECKOUT / "common" / "workload" / "arch" / arch.name
    files = {str(path.relative_to(folder)) for path in folder.glob("*/*")}
    assert files >= {
        *("core/counter.h", "core/counter_khz.c", "core/machine.h"),
        *("guest/guest.mk", "guest/guest_arch.h", "guest/guest_entry.S"),
        *("vm/vm.c", "vm/vm_arch.h", "vm/vcpu_state.c", "vm/corrupt.c"),
    }


def test_no_fragment_asks_for_what_every_kernel_has() -> None:
    base = base_configs(DEFAULT)[0]
    for arch in ARCHITECTURES.values():
        own = base_configs(arch)[1]
        assert not set(_symbols(base)) & set(_symbols(own)), arch.name


def _symbols(path: Path) -> list[str]:
    return re.findall(r"^(?:# )?(CONFIG_\w+)", path.read_text(), re.MULTILINE)


def test_ram_is_where_qemu_puts_it() -> None:
    assert (X86_64.ram.low_size(2 * GIB), X86_64.ram.low_size(4 * GIB)) == (2 * GIB, 2 * GIB)
    assert (ARM64.ram.base, ARM64.ram.low_size(8 * GIB)) == (GIB, 8 * GIB)


def _xml(arch: Architecture, cpu: str | None = None) -> ET.Element:
    nowhere = Path("/nowhere")
    spec = MachineSpec(
        name="x",
        memory_mib=512,
        cpus=2,
        arch=arch,
        cpu=cpu,
        accelerator=Accelerator("tcg", "asked for"),
        kernel=nowhere,
        initrd=nowhere,
        cmdline="",
        emulator=nowhere,
    )
    xml = domain_xml(spec, console=nowhere, dialogue=nowhere, ports={}, trace_log=nowhere)
    return ET.fromstring(xml)


@EVERY
def test_a_machine_of_it(arch: Architecture) -> None:
    for cpu in (None, *(model.name for model in arch.cpus)):
        domain = _xml(arch, cpu)
        system = domain.find("os/type")
        assert system is not None
        assert (system.get("arch"), system.get("machine")) == (arch.libvirt_arch, arch.machine)
        assert domain.findtext("cpu/model") == (cpu or arch.cpus[0].name)
        features = domain.find("features")
        assert features is not None
        assert {feature.tag for feature in features} == set(arch.features)
        ports = domain.findall("devices/serial/target")
        assert [(p.get("type"), p.get("port")) for p in ports] == [
            (arch.serial["type"], "0"),
            (arch.serial["type"], "1"),
        ]


def test_the_cpu_is_one_of_its_own() -> None:
    assert chosen_cpu(ARM64, None) is None
    assert chosen_cpu(ARM64, "max") == "max"
    with pytest.raises(UsageError, match="--cpu EPYC: for arm64 there is cortex-a72, max"):
        chosen_cpu(ARM64, "EPYC")


def test_kvm_is_not_looked_for_on_another_architecture_than_the_hosts() -> None:
    found = probe(ARM64)
    assert found.name == "tcg" and "arm64" in found.reason


def test_what_does_not_apply_is_left_out_and_told() -> None:
    declared = load_stage(1)
    stage = on_architecture(declared, ARM64)
    gone = {c.name for c in declared.controls} - {c.name for c in stage.controls}
    assert gone == {"slow-clock", "timer-halved"}
    assert any("slow-clock" in text and "CNTFRQ_EL0" in text for text in stage.not_claimed)
    before, after = ({c.name for c in one.checks} for one in (declared, stage))
    assert (before - after, after - before) == ({"state_taken"}, {"registers_taken"})
    assert "registers_taken" in stage.control("msr-unknown").breaks
    assert all(control.breaks <= after for control in stage.controls)
    assert on_architecture(declared, DEFAULT) is declared


def test_what_applies_on_it_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--arch", "arm64"]) == 0
    said = capsys.readouterr().out
    assert "registers_taken" in said and "state_taken" not in said
    assert "Not on arm64: slow-clock, because" in said
    assert "stage 02_vfio_noiommu does not run on arm64" in said


def test_no_check_of_it_is_without_a_control() -> None:
    assert unbroken(on_architecture(load_stage(1), ARM64)) == []


def test_a_stage_that_is_not_there_is_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    missing = [stage for stage in all_stages() if not_there(stage, ARM64)]
    assert {stage.label for stage in missing} == {
        *("01_kvm_memfd_qemu", "02_vfio_noiommu", "03_iommufd", "03_iommufd_qemu"),
    }
    with pytest.raises(CannotRunHere, match="02_vfio_noiommu does not run on arm64"):
        on_architecture(load_stage(2), ARM64)
    assert main(["run", "2", "--arch", "arm64"]) == 4
    assert "02_vfio_noiommu does not run on arm64" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("run 1 --arch sparc", "invalid choice: 'sparc'"),
        ("run 1 --arch arm64 --lane debug", "the debug lane works only on x86-64"),
        ("run 1 --arch arm64 --image /bin/true", "--image works only on x86-64"),
        ("gate --upstream --arch arm64", "gate --upstream works only on x86-64"),
    ],
)
def test_what_there_is_not_is_refused_in_a_sentence(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(words.split())
    except SystemExit as ended:
        status = int(ended.code or 0)
    assert (status, said in capsys.readouterr().err) == (2, True)

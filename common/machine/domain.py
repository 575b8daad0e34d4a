# SPDX-License-Identifier: GPL-2.0-only
"""The machine as libvirt XML, built as a tree from a typed description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

from common.arch.architecture import Architecture
from common.arch.known import DEFAULT
from common.host.accel import Accelerator
from common.host.qemu_binary import qemu_path
from common.record.qemu.reset import LOGGED

_QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
ET.register_namespace("qemu", _QEMU)


@dataclass(frozen=True, kw_only=True)
class MachineSpec:
    """What a machine consists of; `devices` are libvirt elements, `qemu_args` QEMU's own."""

    name: str
    memory_mib: int
    cpus: int
    arch: Architecture = DEFAULT
    cpu: str | None = None
    """Of the architecture's CPUs the one that is emulated; None: the default."""
    accelerator: Accelerator
    kernel: Path
    initrd: Path
    cmdline: str
    devices: tuple[ET.Element, ...] = ()
    ports: tuple[str, ...] = ()
    """Names of virtio ports beside the two serial lines; each is a socket on the host."""
    qemu_args: tuple[str, ...] = ()
    traces: tuple[str, ...] = ()
    emulator: Path = field(default_factory=qemu_path)


def domain_xml(
    spec: MachineSpec, *, console: Path, dialogue: Path, ports: Mapping[str, Path], trace_log: Path
) -> str:
    """The domain's XML; `console` is the file of the first serial line, `dialogue` the socket of
    the second.

    `ports` are the sockets of the spec's virtio ports, by name.
    """
    arch = spec.arch
    domain = ET.Element("domain", type="kvm" if spec.accelerator.name == "kvm" else "qemu")
    _text(domain, "name", spec.name)
    _text(domain, "memory", str(spec.memory_mib), unit="MiB")
    _text(domain, "vcpu", str(spec.cpus))
    backing = ET.SubElement(domain, "memoryBacking")
    ET.SubElement(backing, "source", type="memfd")
    ET.SubElement(backing, "access", mode="shared")
    system = ET.SubElement(domain, "os")
    _text(system, "type", "hvm", arch=arch.libvirt_arch, machine=arch.machine)
    _text(system, "kernel", str(spec.kernel))
    _text(system, "initrd", str(spec.initrd))
    _text(system, "cmdline", spec.cmdline)
    domain.append(_cpu(spec))
    features = ET.SubElement(domain, "features")
    for name, attributes in arch.features.items():
        ET.SubElement(features, name, dict(attributes))
    if any(device.find("driver[@intremap='on']") is not None for device in spec.devices):
        # libvirt asks for it; an emulated CPU has no other.
        ET.SubElement(features, "ioapic", driver="qemu")
    # A reset must be seen and counted, not turned into the end of QEMU.
    _text(domain, "on_reboot", "restart")
    _text(domain, "on_crash", "destroy")
    devices = ET.SubElement(domain, "devices")
    _text(devices, "emulator", str(spec.emulator))
    kernels = ET.SubElement(devices, "serial", type="file")
    ET.SubElement(kernels, "source", path=str(console), append="on")
    ET.SubElement(kernels, "target", dict(arch.serial), port="0")
    workload = ET.SubElement(devices, "serial", type="unix")
    ET.SubElement(workload, "source", mode="bind", path=str(dialogue))
    ET.SubElement(workload, "target", dict(arch.serial), port="1")
    ET.SubElement(devices, "controller", type="usb", model="none")
    ET.SubElement(devices, "memballoon", model="none")
    ET.SubElement(ET.SubElement(devices, "video"), "model", type="none")
    for name, path in ports.items():
        channel = ET.SubElement(devices, "channel", type="unix")
        ET.SubElement(channel, "source", mode="bind", path=str(path))
        ET.SubElement(channel, "target", type="virtio", name=name)
    devices.extend(spec.devices)
    commandline = ET.SubElement(domain, f"{{{_QEMU}}}commandline")
    arguments = ["-D", str(trace_log), *LOGGED, "-msg", "timestamp=on"]
    for event in spec.traces:
        arguments += ["-trace", event]
    for argument in (*arguments, *arch.qemu_args, *spec.qemu_args):
        ET.SubElement(commandline, f"{{{_QEMU}}}arg", value=argument)
    # libvirt asks for each property of the first CPU, 460 questions in 280 ms, where it believes
    # that QEMU can say which features it cannot give; otherwise one question does. Nobody asks
    # libvirt for the CPU that came of it, which is one model and two features.
    capabilities = ET.SubElement(domain, f"{{{_QEMU}}}capabilities")
    ET.SubElement(capabilities, f"{{{_QEMU}}}del", capability="cpu-unavailable-features")
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode")


def _cpu(spec: MachineSpec) -> ET.Element:
    if spec.accelerator.name == "kvm":
        return ET.Element("cpu", mode="host-passthrough", migratable="off")
    model = spec.arch.cpu(spec.cpu)
    cpu = ET.Element("cpu", mode="custom", match="exact", check="none")
    _text(cpu, "model", model.name, fallback="forbid")
    for feature in model.features:
        ET.SubElement(cpu, "feature", policy="require", name=feature)
    return cpu


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text

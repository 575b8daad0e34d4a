# SPDX-License-Identifier: GPL-2.0-only
"""A machine's two igb, fed by UDP datagrams, and the bridges above them.

Each is behind a root port of its own, or both are behind one PCIe switch: then three bridges are
above each, and two of them above both.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from xml.etree import ElementTree as ET

_SLOTS = (2, 3)


@dataclass(frozen=True)
class Places:
    """Where the devices are, as the firmware and both kernels number them: by depth."""

    device: str
    other: str
    bridges: tuple[str, ...]
    """Above the first device, from the root port on."""


BEHIND_PORTS = Places("01:00.0", "02:00.0", ("00:02.0",))
BEHIND_SWITCH = Places("03:00.0", "04:00.0", ("00:02.0", "01:00.0", "02:00.0"))
DEVICE, OTHER = BEHIND_PORTS.device, BEHIND_PORTS.other
"""Where a stage has no switch."""


def places(options: Mapping[str, str | int]) -> Places:
    """The places for a trial's options: behind a switch where they say switch=1."""
    return BEHIND_SWITCH if str(options.get("switch", 0)) == "1" else BEHIND_PORTS


def igb_devices(options: Mapping[str, int]) -> tuple[ET.Element, ...]:
    """The libvirt elements of both; the UDP ports are free ones of this moment."""
    root = ET.Element("controller", type="pci", index="0", model="pcie-root")
    switch = options.get("switch") == 1
    bridges = _switch() if switch else [_port(n, "pcie-root-port", 0, s) for n, s in _numbered()]
    buses = (3, 4) if switch else (1, 2)
    ports = iter(_free_ports(2 * len(buses)))
    devices = [
        _igb(number, bus, device_port=next(ports), sender_port=next(ports))
        for number, bus in enumerate(buses, start=1)
    ]
    return (root, *bridges, *devices)


def udp_ports(elements: Iterable[ET.Element]) -> tuple[int, ...]:
    """Where to send datagrams for each device, in the order of `igb_devices`."""
    locals_ = [e.find("source/local") for e in elements if e.tag == "interface"]
    return tuple(int(local.get("port", "")) for local in locals_ if local is not None)


def sender_port(elements: Iterable[ET.Element]) -> int:
    """Where the first device's own frames go to."""
    sources = (e.find("source") for e in elements if e.tag == "interface")
    return next(int(source.get("port", "")) for source in sources if source is not None)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _numbered() -> Iterable[tuple[int, int]]:
    return enumerate(_SLOTS, start=1)


def _switch() -> list[ET.Element]:
    """A root port, the switch's port to it, and one to each device."""
    upstream = ET.Element("controller", type="pci", index="2", model="pcie-switch-upstream-port")
    ET.SubElement(upstream, "model", name="x3130-upstream")
    _address(upstream, bus=1, slot=0)
    downstream = [_port(index, "pcie-switch-downstream-port", 2, index - 3) for index in (3, 4)]
    return [_port(1, "pcie-root-port", 0, _SLOTS[0]), upstream, *downstream]


_QEMU_MODEL = {
    "pcie-root-port": "pcie-root-port",
    "pcie-switch-downstream-port": "xio3130-downstream",
}


def _port(index: int, model: str, bus: int, slot: int) -> ET.Element:
    """A port at BUS:SLOT; `index` is the number of the bus behind it."""
    port = ET.Element("controller", type="pci", index=str(index), model=model)
    ET.SubElement(port, "model", name=_QEMU_MODEL[model])
    ET.SubElement(port, "target", chassis=str(index), port=hex(slot << 3), hotplug="off")
    _address(port, bus=bus, slot=slot)
    return port


def _igb(number: int, bus: int, *, device_port: int, sender_port: int) -> ET.Element:
    interface = ET.Element("interface", type="udp")
    ET.SubElement(interface, "mac", address=f"52:54:00:00:00:{number:02x}")
    source = ET.SubElement(interface, "source", address="127.0.0.1", port=str(sender_port))
    ET.SubElement(source, "local", address="127.0.0.1", port=str(device_port))
    ET.SubElement(interface, "model", type="igb")
    ET.SubElement(interface, "rom", enabled="no")
    _address(interface, bus=bus, slot=0)
    return interface


def _address(element: ET.Element, *, bus: int, slot: int) -> None:
    ET.SubElement(
        element,
        "address",
        type="pci",
        domain="0x0000",
        bus=f"0x{bus:02x}",
        slot=f"0x{slot:02x}",
        function="0x0",
    )

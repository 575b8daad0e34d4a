# SPDX-License-Identifier: GPL-2.0-only
"""A machine's two igb, fed by UDP datagrams, and the bridges above them.

Each is behind a root port of its own, or both are behind one PCIe switch: then three bridges are
above each, and two of them above both.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

_SLOTS = (2, 3)
_Place = tuple[int, int, int]  # bus, slot, function


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
    if options.get("switch") == 1:
        buses = (3, 4)
        return _tree(_switch(buses), [(bus, 0, 0) for bus in buses])
    return igb_behind_ports(_SLOTS, ())


def igb_behind_ports(
    port_slots: Sequence[int], root_slots: Sequence[int]
) -> tuple[ET.Element, ...]:
    """The libvirt elements of one behind a root port in each of these slots, on the buses from 1
    on, and one in each of the others."""
    numbered = list(enumerate(port_slots, start=1))
    bridges = [_port(bus, "pcie-root-port", 0, slot) for bus, slot in numbered]
    return _tree(bridges, [*((bus, 0, 0) for bus, _ in numbered), *((0, s, 0) for s in root_slots)])


def igb_pairs(*, ports: int, root_slots: Sequence[int]) -> tuple[ET.Element, ...]:
    """The libvirt elements of many: two functions behind each port of a switch, on the buses from 3
    on, and two in each of the root's slots."""
    buses = range(3, 3 + ports)
    slots = [*((bus, 0) for bus in buses), *((0, slot) for slot in root_slots)]
    return _tree(_switch(buses), [(bus, slot, n) for bus, slot in slots for n in (0, 1)])


def _tree(bridges: Iterable[ET.Element], places: Sequence[_Place]) -> tuple[ET.Element, ...]:
    root = ET.Element("controller", type="pci", index="0", model="pcie-root")
    ports = iter(_free_ports(2 * len(places)))
    devices = [
        _igb(number, place, device_port=next(ports), sender_port=next(ports))
        for number, place in enumerate(places, start=1)
    ]
    for (bus, slot, function), device in zip(places, devices, strict=True):
        if not function and (bus, slot, 1) in places:
            for address in device.iter("address"):
                address.set("multifunction", "on")
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


def _switch(buses: Iterable[int]) -> list[ET.Element]:
    """A root port, the switch's port to it, and one to each of the buses, which begin with 3."""
    upstream = ET.Element("controller", type="pci", index="2", model="pcie-switch-upstream-port")
    ET.SubElement(upstream, "model", name="x3130-upstream")
    _address(upstream, bus=1, slot=0)
    downstream = [_port(bus, "pcie-switch-downstream-port", 2, bus - 3) for bus in buses]
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


def _igb(number: int, place: _Place, *, device_port: int, sender_port: int) -> ET.Element:
    interface = ET.Element("interface", type="udp")
    ET.SubElement(interface, "mac", address=f"52:54:00:00:00:{number:02x}")
    source = ET.SubElement(interface, "source", address="127.0.0.1", port=str(sender_port))
    ET.SubElement(source, "local", address="127.0.0.1", port=str(device_port))
    ET.SubElement(interface, "model", type="igb")
    ET.SubElement(interface, "rom", enabled="no")
    bus, slot, function = place
    _address(interface, bus=bus, slot=slot, function=function)
    return interface


def _address(element: ET.Element, *, bus: int, slot: int, function: int = 0) -> None:
    ET.SubElement(
        element,
        "address",
        type="pci",
        domain="0x0000",
        bus=f"0x{bus:02x}",
        slot=f"0x{slot:02x}",
        function=hex(function),
    )

# SPDX-License-Identifier: GPL-2.0-only
"""A machine's two igb, each behind a root port of its own and fed by UDP datagrams."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from xml.etree import ElementTree as ET

# As the firmware and both kernels number them: each port is the only bridge before its bus.
PORT, DEVICE = "00:02.0", "01:00.0"
OTHER_PORT, OTHER = "00:03.0", "02:00.0"
_SLOTS = (2, 3)


def igb_devices(_options: Mapping[str, int]) -> tuple[ET.Element, ...]:
    """The libvirt elements of both; the UDP ports are free ones of this moment."""
    elements = [ET.Element("controller", type="pci", index="0", model="pcie-root")]
    ports = iter(_free_ports(2 * len(_SLOTS)))
    for bus, slot in enumerate(_SLOTS, start=1):
        elements.append(_root_port(bus, slot))
        elements.append(_igb(bus, device_port=next(ports), sender_port=next(ports)))
    return tuple(elements)


def udp_ports(elements: Iterable[ET.Element]) -> tuple[int, ...]:
    """Where to send datagrams for each device, in the order of `igb_devices`."""
    locals_ = [e.find("source/local") for e in elements if e.tag == "interface"]
    return tuple(int(local.get("port", "")) for local in locals_ if local is not None)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _root_port(bus: int, slot: int) -> ET.Element:
    port = ET.Element("controller", type="pci", index=str(bus), model="pcie-root-port")
    ET.SubElement(port, "model", name="pcie-root-port")
    ET.SubElement(port, "target", chassis=str(bus), port=hex(slot << 3), hotplug="off")
    _address(port, bus=0, slot=slot)
    return port


def _igb(bus: int, *, device_port: int, sender_port: int) -> ET.Element:
    interface = ET.Element("interface", type="udp")
    ET.SubElement(interface, "mac", address=f"52:54:00:00:00:{bus:02x}")
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

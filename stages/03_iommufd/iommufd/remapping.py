# SPDX-License-Identifier: GPL-2.0-only
"""What QEMU's trace has of interrupt remapping, and of requests that a device was led to send.

A write to 0xfee00000 and above is an interrupt request, whatever the page table says. Bit 4 of
its address says that an entry of the remapping table is asked for. Without it the request is in
compatibility format, which QEMU lets pass even where the IOMMU has to block it
(docs/oddities.md): those count for nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from common.record.dialogue import Side
from common.record.qemu.trace import TEXTS, TraceEvent, ms_after, switches
from iommufd.evidence import Remapping, Requests

TRACES = ("vtd_ir_enable", "vtd_reg_ir_root")
REQUESTS = ("vtd_ir_remap_msi_req", "vtd_ir_remap_msi")
"""Each request, and then what became of it, where it was not blocked."""
_TABLE = TEXTS["vtd_reg_ir_root"]
_PAGE = 4096
_REMAPPED = 1 << 4


def read_remapping(events: Sequence[TraceEvent], sides: tuple[Side, ...], zero: int) -> Remapping:
    """`zero` is when "Starting new kernel" was said, in ns."""
    began = next((side.started for side in sides if side.name == "incoming"), zero)
    start = sides[0].number("unmapped.interrupts") if sides else None
    requests = [] if start is None else list(_requests(events, range(start, start + _PAGE)))
    return Remapping(
        enables=tuple((ms_after(t, zero), on) for t, on in switches(events, "vtd_ir_enable")),
        tables=tuple(
            (ms_after(event.t, zero), match[1], int(match[2], 16))
            for event in events
            if event.name == "vtd_reg_ir_root" and (match := _TABLE.match(event.text))
        ),
        requests=Requests(
            count=len(requests),
            in_gap=sum(zero < t < began for t, _ in requests),
            delivered=sum(delivered for _, delivered in requests),
            first=ms_after(requests[0][0], zero),
            last=ms_after(requests[-1][0], zero),
        )
        if requests
        else None,
    )


def _requests(events: Iterable[TraceEvent], where: range) -> Iterator[tuple[int, bool]]:
    """(host's ns, whether it was delivered) of each request in the format that is remapped.

    QEMU says both of a request before it looks at the next one.
    """
    asked: tuple[int, int] | None = None
    for event in events:
        if event.name not in REQUESTS or not (match := TEXTS[event.name].match(event.text)):
            continue
        address = int(match[1], 16)
        if event.name == REQUESTS[0]:
            if asked:
                yield asked[0], False
            ours = address in where and address & _REMAPPED
            asked = (event.t, address) if ours else None
        elif asked and asked[1] == address:
            yield asked[0], True
            asked = None
    if asked:
        yield asked[0], False

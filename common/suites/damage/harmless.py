# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel may take over damaged, because nothing depends on it; and why.

Everything else that is taken over as if nothing had been changed is a violation.
"""

from __future__ import annotations

_PRINTED = "it is only printed"
_LARGER = "it only has to be large enough"
_ORDER = "their order has no meaning"
_NO_FLB = "nobody asks for an FLB where nothing but memfds is handed over"

_FIELDS = {
    "fdt.size": "the tree may be smaller than its stated size",
    "fdt.version": "a later version that says it is compatible is read as the one that is known",
    "fdt.LUO-size": _LARGER,
    "memfd.flags": "no flag is defined, and nothing looks at them",
    "memfd.area": "it tells how the list of folios is mapped while it is read",
}
_RECORDS = {
    "fdt.kexec-metadata": _PRINTED,
    "metadata.": _PRINTED,
    "luo.number": _PRINTED,
}
_POINTS = {
    "session.all.swap": _ORDER,
    "file.all.swap": _ORDER,
    "folio.all.swap": _ORDER,
    "folio.flags.bit": "this flag is not defined",
}
_WITHOUT_DEVICES = ("luo.flbs", "flbs.", "page-flbs.")


def harmless(point: str, *, devices: bool) -> str | None:
    """Why the bytes of that point have no meaning; None where they have one.

    `devices`: whether anything but memfds is handed over.
    """
    if not devices and point.startswith(_WITHOUT_DEVICES):
        return _NO_FLB
    if reason := _POINTS.get(point) or _FIELDS.get(point.rpartition(".")[0]):
        return reason
    return next((why for start, why in _RECORDS.items() if point.startswith(start)), None)

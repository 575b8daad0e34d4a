# SPDX-License-Identifier: GPL-2.0-only
"""The words with which patch mails make the claims of the stages with a device (see Said)."""

from __future__ import annotations

from common.checks.model import Said

GOES_ON = (
    Said(r"(?:goes|going|go) on with DMA"),
    Said(r"(?:keeps?|goes on) doing DMA"),
    Said(r"DMA (?:goes|go|going) on"),
    Said(r"DMA (?:continues|is continuous)", ("dma_in_gap", "no_silence")),
)
NONE_LOST = (
    Said(r"no (?:frame|packet)s?(?: is| are| was| were)? (?:lost|dropped)"),
    Said(r"device's own [^.;]{0,20}are the same", ("device_counted_all",)),
)
LEFT_ALONE = (
    Said(r"device is (?:not|never) reset", ("no_device_reset",)),
    Said(r"no reset, no change of power state", ("no_device_reset", "stayed_in_d0")),
    Said(r"bus mastering is never (?:turned off|cleared)", ("bus_mastering_kept",)),
    Said(r"(?:does not|never) leaves? D0", ("stayed_in_d0",)),
)
SAME_DEVICE = (Said(r"registers [^.;]{0,40}as the old kernel left them", ("same_registers",)),)
ABORTS = (Said(r"the device went on without a pause", ("aborts_unnoticed",)),)
STAYS_ON = (Said(r"translation is never (?:disabled|turned off)", ("never_off",)),)
TAKEN_OVER = (
    Said(r"without the page table ever having been replaced", ("same_table",)),
    Said(
        r"context entry and domain ID\b[^.;]{0,80} are the same in the old kernel",
        ("same_entry", "same_table"),
    ),
)
UNMOVED = (
    Said(r"none of [0-9,]+ pages had moved", ("same_pages",)),
    Said(r"no page moved", ("same_pages",)),
)

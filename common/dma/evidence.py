# SPDX-License-Identifier: GPL-2.0-only
"""What the host saw of a device's DMA, as the record has it; made by common/dma/witness.py."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from common.dma.frames import FrameReport, Window
from common.record.dialogue import Side, Stored
from common.record.evidence import Trial
from common.record.stored_file import Count, KhoSeen, Strict
from common.record.witnesses import Witnessed

BUS_MASTER = 0x4
"""Of PCI_COMMAND: the device may write to memory."""
MEMORY = 0x2
"""The same: it answers at the addresses in its BARs."""


class Socket(Strict):
    """socket.json: of QEMU's socket, frames that the host dropped there, and its size in bytes."""

    drops: Count | None
    buffer: Count | None


class Noted(Stored):
    """An event of QEMU's trace, `ms` after "Starting new kernel"."""

    ms: float
    text: str


class CommandWritten(Stored):
    """A write to PCI_COMMAND, `ms` after "Starting new kernel"."""

    ms: float
    bdf: str
    value: int


class DeviceTrace(Stored):
    """What QEMU's trace has of the devices between start and end of the traffic.

    Of each kind the number, and the first few.
    """

    events: int = 0
    config_writes: int = 0
    """To the configuration of the device and of the bridges above it."""
    config_writes_incoming: int = 0
    """Those of them after "Starting new kernel"."""
    command: tuple[CommandWritten, ...] = ()
    """Bus mastering cleared in the device, or in a bridge above it."""
    command_count: int = 0
    last_command: CommandWritten | None = None
    """The last write to the device's own PCI_COMMAND after the traffic, until its owner said that
    it had let go of it; None for none."""
    undecoded: CommandWritten | None = None
    """After this write the device, or a bridge above it, decoded no memory for longest."""
    undecoded_ms: float = 0.0
    """For how long."""
    other_master_off: tuple[CommandWritten, ...] = ()
    """The same in the second device."""
    other_master_off_count: int = 0
    power: tuple[Noted, ...] = ()
    """The power state of the device, or of a bridge above it, was changed."""
    power_count: int = 0
    resets: tuple[Noted, ...] = ()
    resets_count: int = 0
    gated: tuple[Noted, ...] = ()
    """QEMU kept a frame back, as the device may not write."""
    gated_count: int = 0


class OtherDevice(Stored):
    """The second device: before the kexec, in the old kernel's last moments, after the kexec, and
    once it is released: after FINISH, or from its taker's death to its next use."""

    before: Window
    last: Window
    after: Window
    finished: Window | None = None


class AfterTakeover(Stored):
    """From when the device was taken over, or initialised anew, nearly to the end."""

    window: Window
    anew: bool
    """It had been stopped for the live update; its ring was placed anew."""


class DmaEvidence(Witnessed):
    """Of a stage with a device."""

    frames: FrameReport | None = None
    """None where the trial did not come to its traffic."""
    between_heads: tuple[int, int] | None = None
    """The least and the most frames that the device can have written between both looks at its
    own index."""
    between_heads_due: tuple[int, int] | None = None
    """The same of a device that writes what is sent when it is due."""
    after: AfterTakeover | None = None
    """None where nobody took it over."""
    socket: Socket | None = None
    kho: KhoSeen = Field(default_factory=dict)
    other: OtherDevice | None = None
    """None where nothing was sent to it, or there was no kexec."""
    trace: DeviceTrace
    left_ms: float | None = None
    """When the outgoing side last waited for the host, in ms after "Starting new kernel"."""

    def unseen(self, sides: Sequence[Side]) -> str | None:
        """Traffic was asked for, and nothing was sent, or nothing was seen to land."""
        if any("await.traffic" in side.stamps for side in sides):
            if self.frames is None:
                return "the watcher of the machine's RAM left nothing: device-landed.bin is missing"
            if not self.frames.sent:
                return (
                    "the host sent no frame, though the workload waited for some (device-sent.bin)"
                )
            counted = max((_counted(side.facts) for side in sides), default=0)
            if counted and not self.frames.landed:
                return (
                    "the watcher of the machine's RAM saw no frame, though the device's driver"
                    f" counted {counted} before the kexec"
                )
        return super().unseen(sides)


def _counted(facts: dict[str, str]) -> int:
    """Frames that the workload saw arrive while the outgoing kernel ran."""
    counts = (facts.get(f"{what}.frames", "") for what in ("preserve", "load"))
    return sum(int(count) for count in counts if count.isdecimal())


def frames_of(trial: Trial) -> FrameReport | None:
    """What the sender's and the watcher's logs show; None without traffic, or without a device."""
    return trial.witness.frames if isinstance(trial.witness, DmaEvidence) else None


def gap_of(trial: Trial) -> Window | None:
    """What happened between "Starting new kernel" and the first line of the new userspace."""
    frames = frames_of(trial)
    return frames.gap if frames else None


def dma_in_the_gap(trial: Trial) -> dict[str, str]:
    """{"DMA in the gap": frames, longest silence}, a row of the summary; {} without a gap."""
    gap = gap_of(trial)
    if gap is None:
        return {}
    return {
        "DMA in the gap": f"{gap.landed} frames, longest silence {gap.silence_ms:.0f} ms",
    }

# SPDX-License-Identifier: GPL-2.0-only
"""Options that several stages have, and the ring that a rate needs."""

from __future__ import annotations

from common.errors import UsageError
from common.stage.declaration import Option


def guest_memory(default: int) -> Option:
    """RAM of the KVM guest in MiB, even."""
    return Option(
        flag="--guest-memory",
        parameter="guest_memory",
        default=default,
        minimum=16,
        maximum=1 << 20,
        step=2,
        metavar="MIB",
        help="RAM of the KVM guest, in MiB (default 256; stage 2: 128)",
    )


def vcpus() -> Option:
    """How many vCPUs the KVM guest has."""
    return Option(
        flag="--vcpus",
        parameter="vcpus",
        default=1,
        minimum=1,
        maximum=8,
        help="vCPUs of the KVM guest (default 1)",
    )


def qemu_guest(default: int, *, minimum: int) -> tuple[Option, ...]:
    """RAM of QEMU's guest in MiB, even, and how many vCPUs it has."""
    return (
        Option(
            flag="--guest-memory",
            parameter="guest_memory",
            default=default,
            minimum=minimum,
            maximum=1 << 20,
            step=2,
            metavar="MIB",
            help=f"RAM of QEMU's guest, in MiB (default {default})",
        ),
        Option(
            flag="--vcpus",
            parameter="vcpus",
            default=1,
            minimum=1,
            maximum=8,
            help="vCPUs of QEMU's guest (default 1)",
        ),
    )


def frames(*, ring: int, aborts: int) -> tuple[Option, ...]:
    """Frames a second, receive descriptors (the default is `ring`), aborts before the kexec."""
    return (
        Option(
            flag="--rate",
            parameter="rate",
            default=1000,
            minimum=50,
            maximum=2000,
            help="frames a second to the device (default 1000)",
        ),
        Option(
            flag="--ring",
            parameter="ring",
            default=ring,
            minimum=256,
            maximum=32768,
            step=256,
            help="receive descriptors of the device (default 8192; stage 3: 12288)",
        ),
        Option(
            flag="--aborts",
            parameter="aborts",
            default=aborts,
            minimum=0,
            maximum=1000,
            help="how often to abort before the kexec: session closed, holder killed (default 20;"
            " stage 3: 10)",
        ),
    )


def check_ring(*, rate: int, ring: int, seconds: int) -> None:
    """Raise UsageError, with the sum, where a ring is full before somebody reads it again."""
    need, room = rate * seconds, ring - ring // 8
    if need > room:
        raise UsageError(
            f"{rate} frames/s x {seconds} s without a reader = {need} frames, and a ring of"
            f" {ring}, an eighth of it still unread at the kexec, has room for {room};"
            " ask for a larger --ring or a lower --rate"
        )

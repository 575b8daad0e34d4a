# SPDX-License-Identifier: GPL-2.0-only
"""The options that choose kernels, for every verb that builds or boots."""

from __future__ import annotations

import argparse
from pathlib import Path

from common.arch.known import ARCHITECTURES, DEFAULT
from common.errors import UsageError
from common.host.debian import DEFAULT_PACKAGE
from common.stage.kernel_choice import (
    SIDES,
    KernelChoice,
    Origin,
    default_origin,
    series_of,
)


def kernel_options(parser: argparse.ArgumentParser, *, sides: bool = True) -> None:
    """The options that choose kernels; without `sides` those alone that hold for all of them."""
    group = parser.add_argument_group("kernels")
    if sides:
        for kind, metavar, help in (
            ("tree", "DIR", "your kernel tree, for both sides"),
            (
                "source",
                "TARBALL",
                "the same from a tarball such as linux-7.3.4.tar.xz; its digest is recorded",
            ),
            ("image", "BZIMAGE", "a prebuilt kernel"),
            ("package", "NAME", f"a Debian source package (default: {DEFAULT_PACKAGE})"),
        ):
            for side in ("", *SIDES):
                name = f"--{side}-{kind}" if side else f"--{kind}"
                group.add_argument(name, metavar=metavar, help=None if side else help)
    arch_option(group)
    group.add_argument(
        "--series",
        default="ours",
        metavar="none|ours|DIR|MBX",
        help="what to apply to the source: our series (default), nothing (for a tree with its own"
        " support, or none), a folder of *.patch (in order of name, or of a quilt series file)"
        " and *.config, or a mailbox of patches (*.mbx)",
    )
    group.add_argument(
        "--config",
        action="append",
        default=[],
        type=Path,
        metavar="FRAGMENT",
        help="a Kconfig fragment of your own, applied after all others",
    )
    group.add_argument(
        "--line-tables",
        action="store_true",
        help="decode stacks down to file and line; same code, but a separate kernel build",
    )


def arch_option(parser: argparse._ActionsContainer) -> None:
    """--arch NAME."""
    parser.add_argument(
        "--arch",
        choices=tuple(ARCHITECTURES),
        default=DEFAULT.name,
        help=f"of the machine and its kernels (default: {DEFAULT.name}); see docs/arm64.md",
    )


def chosen_kernels(arguments: argparse.Namespace) -> KernelChoice:
    """The choice that the options make. Raises UsageError where two contradict each other."""
    outgoing, incoming = (_origin(arguments, side) for side in SIDES)
    arch = ARCHITECTURES[arguments.arch]
    if arch is not DEFAULT and "image" in (outgoing.kind, incoming.kind):
        raise UsageError(f"--image works only on {DEFAULT.title}")
    return KernelChoice(
        arch=arch,
        outgoing=outgoing,
        incoming=incoming,
        series=series_of(arguments.series),
        config=tuple(arguments.config),
        line_tables=arguments.line_tables,
    )


def _origin(arguments: argparse.Namespace, side: str) -> Origin:
    """What holds for this side goes before what holds for both."""
    for prefix in (f"{side}_", ""):
        given = [
            Origin(kind, value)
            for kind in ("package", "tree", "source", "image")
            if (value := getattr(arguments, f"{prefix}{kind}")) is not None
        ]
        if len(given) > 1:
            options = " and ".join(f"--{prefix.replace('_', '-')}{o.kind}" for o in given)
            raise UsageError(f"{options} name two kernels for one side: give one of them")
        if given:
            return given[0]
    return default_origin()

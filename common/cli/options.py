# SPDX-License-Identifier: GPL-2.0-only
"""Options that several verbs have, and their values."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from common.arch.known import ARCHITECTURES, DEFAULT
from common.cli.kernel_options import kernel_options
from common.errors import UsageError
from common.host.processes.load import MOST as MOST_BUSY
from common.host.qemu_binary import VARIABLE
from common.judge.known_splats import KnownSplat, read_known_splats
from common.record.setting import LONGEST
from common.run.guest_image import GUEST_CMDLINE, GuestImage
from common.run.options import RunOptions
from common.stage.declaration import WORKLOADS, Option
from common.stage.lane import LANES
from common.stage.loading import all_stages


def run_options(arguments: argparse.Namespace) -> RunOptions:
    """What the machine's options say; the one place where they leave the parser's hands."""
    given = {o.parameter for stage in all_stages() for o in stage.options}
    return RunOptions(
        accelerator=arguments.accel,
        cpu=arguments.cpu,
        numbers={n: v for n in sorted(given) if (v := getattr(arguments, n)) is not None},
        load=arguments.load,
        append=tuple(arguments.append),
        guest_image=chosen_guest(arguments) if hasattr(arguments, "guest_image") else None,
    )


def splats_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--splats",
        type=Path,
        metavar="FILE",
        help="TOML file of known splats, which fail no check before they expire (docs/ci.md)",
    )


def known_splats(arguments: argparse.Namespace) -> tuple[KnownSplat, ...]:
    """The list that was given. Raises UsageError for one that is none."""
    return read_known_splats(arguments.splats) if arguments.splats else ()


def machine_options(parser: argparse.ArgumentParser, *, sides: bool = True) -> None:
    kernel_options(parser, sides=sides)
    parser.set_defaults(load=0, append=[])  # for the verbs without these options
    machine = parser.add_argument_group("machine")
    accelerator_option(machine)
    machine.add_argument("--cpu", metavar="MODEL", help=f"the emulated CPU ({_cpus()})")
    qemu_option(machine)
    connect_option(machine)
    # The first of a flag: where a stage's workloads differ in it, the stage's own.
    options = {o.flag: o for stage in reversed(all_stages()) for o in stage.options}
    for option in options.values():
        machine.add_argument(
            option.flag,
            dest=option.parameter,
            type=_in_range(option),
            metavar=option.metavar,
            help=option.help,
        )


def _cpus() -> str:
    """Of each architecture that has a choice."""
    several = [arch for arch in ARCHITECTURES.values() if len(arch.cpus) > 1]
    return "; ".join(f"{a.name}: {', '.join(cpu.name for cpu in a.cpus)}" for a in several)


def accelerator_option(parser: argparse._ActionsContainer) -> None:
    """--accel."""
    parser.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto")


def connect_option(parser: argparse._ActionsContainer) -> None:
    """--connect URI."""
    parser.add_argument(
        "--connect", metavar="URI", help="libvirt URI instead of the embedded driver"
    )


def qemu_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--qemu",
        metavar="PATH",
        help=f"the QEMU for the machines (default: ${VARIABLE}, else the one in PATH)",
    )


def chain_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--chain",
        type=_chain,
        default=1,
        metavar="N",
        help="N live updates in one machine: from A to B, back to A, and so on (stage 1)",
    )


def workload_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workload",
        choices=WORKLOADS,
        default="vmm",
        help="what runs the guest: our own VMM, or the host's QEMU (default: vmm)",
    )


def lane_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--lane",
        choices=LANES,
        default="default",
        help="debug: kernels with KASAN, lockdep and kmemleak; server: with NUMA, deferred struct"
        " page init, swap, memcg and modules, as in distributions (default: default)",
    )


def gate_options(parser: argparse.ArgumentParser) -> None:
    """Those of the gate verb that no other has."""
    parser.add_argument("--until", type=int, metavar="N", help="the last stage to run")
    parser.add_argument(
        "--baseline",
        action="append",
        default=[],
        metavar="RUN",
        help="also fail if this earlier run of a stage did better (once for each stage)",
    )
    parser.add_argument("--controls", action="store_true", help="run the controls as well")
    parser.add_argument(
        "--upstream",
        action="store_true",
        help="instead of the stages: the kernel's own live update tests, from the tree under test",
    )
    mail = parser.add_argument_group("a series from a mailing list")
    mail.add_argument(
        "--from-mail",
        metavar="MBOX",
        help="its mailbox, as made by b4: checks --tree for its base and prerequisites; builds,"
        " boots and live-updates each patch; then runs the stages",
    )
    mail.add_argument(
        "--print",
        choices=("ktap", "json", "reply"),
        help="to stdout: the stages' KTAP (default), the JSON for `b4 review`, or the reply to the"
        " cover letter; all three are kept in a folder with the runs",
    )
    mail.add_argument(
        "--from", dest="sender", metavar="ADDRESS", help="sender of the reply (default: git's user)"
    )


def matrix_options(parser: argparse.ArgumentParser) -> None:
    """Those of the matrix verb that no other has."""
    parser.add_argument(
        "--kernel",
        action="append",
        default=[],
        metavar="[NAME=]WHERE",
        help="linux-source-X.Y[@SUITE], a tree, or a bzImage; every pair is run in both directions",
    )
    parser.add_argument("--stage", action="append", type=int, metavar="N", help="default: all")
    parser.add_argument("--controls", action="store_true", help="also run each control, as a cell")
    chain_option(parser)
    parser.add_argument("--jobs", type=positive, metavar="N", help="cells to run in parallel")
    parser.add_argument(
        "--refusal-ok",
        action="store_true",
        help="do not fail if an incoming kernel refuses the handover",
    )
    parser.add_argument("--results", type=Path, metavar="DIR", help="default: with the runs")
    parser.add_argument(
        "--formats",
        nargs="?",
        const="text",
        choices=("text", "json", "page"),
        help="which formats each kernel writes; what each pair should do, and did",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--plan", choices=("github", "gitlab"), help="print the cells as a CI job matrix"
    )
    what.add_argument("--cell", metavar="NAME", help="run only this cell: one job")
    what.add_argument(
        "--collect",
        nargs="+",
        metavar="DIR",
        help="print the table of the results that jobs left in --results",
    )


_SWEEP_EPILOG = """\
Makes the N-th copy, slab allocation or page allocation in a call fail, for N = 1, 2, 3 and so on
(docs/sweep.md). With --damage, changes each field of each record that one kernel hands over to the
next (docs/damage.md).

exit status: 0 no violation; 1 a violation; 3 not every point was tried, or the harness failed;
5 a kernel crashed at a point, 6 one hung at it (with --damage both are violations); 2, 4, 125 as
with every command
"""


def sweep_options(parser: argparse.ArgumentParser) -> None:
    """Those of the sweep verb that no other has."""
    parser.epilog = _SWEEP_EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("stage", type=int, metavar="N", help="the stage")
    parser.add_argument(
        "--point",
        metavar="NAME",
        help="only this point, named as printed: CALL:KIND:N, or RECORD.FIELD.KIND",
    )
    parser.add_argument(
        "--damage", action="store_true", help="damage the records that are handed over"
    )
    damage = parser.add_argument_group("with --damage")
    lane_option(damage)
    damage.add_argument("--random", type=positive, metavar="K", help="also damage K random bytes")
    damage.add_argument(
        "--seed", type=positive, metavar="S", help="selects bits and bytes (default 1)"
    )
    damage.add_argument(
        "--resume",
        type=Path,
        metavar="DIR",
        help="finish an interrupted sweep; judge a complete one again",
    )


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


def hours(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of hours")
    return value


def _chain(text: str) -> int:
    value = positive(text)
    if value > LONGEST:
        raise argparse.ArgumentTypeError(f"{value} updates are more than {LONGEST}")
    return value


def _in_range(option: Option) -> Callable[[str], int]:
    def number(text: str) -> int:
        if option.words and text not in option.words:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(option.words)}")
        value = option.words.index(text) if option.words else int(text)
        if not option.minimum <= value <= option.maximum:
            raise argparse.ArgumentTypeError(
                f"{value} is not between {option.minimum} and {option.maximum}"
            )
        if value % option.step:
            raise argparse.ArgumentTypeError(f"{value} is not a multiple of {option.step}")
        return value

    return number


def append_option(parser: argparse.ArgumentParser) -> None:
    """--append WORDS."""
    parser.add_argument(
        "--append",
        type=str.split,
        action="extend",
        default=[],
        metavar="WORDS",
        help="append kernel parameters to both command lines; may be repeated. kho_scratch="
        " replaces ours",
    )


def jobs_option(parser: argparse.ArgumentParser) -> None:
    """--jobs N, of controls."""
    parser.add_argument(
        "--jobs",
        type=positive,
        metavar="N",
        help="controls to run at once; main runs are always run alone (default: as many as this"
        " host has CPUs and memory for)",
    )


def load_option(parser: argparse.ArgumentParser) -> None:
    """--load N."""
    parser.add_argument(
        "--load",
        type=_busy,
        default=0,
        metavar="N",
        help=f"run N busy processes next to each trial, 0 to {MOST_BUSY} (default 0)",
    )


def _busy(text: str) -> int:
    value = int(text)
    if not 0 <= value <= MOST_BUSY:
        raise argparse.ArgumentTypeError(f"{value} is not between 0 and {MOST_BUSY}")
    return value


def guest_options(parser: argparse.ArgumentParser) -> None:
    """The options that name a guest."""
    group = parser.add_argument_group("guest of your own (with --workload qemu)")
    group.add_argument(
        "--guest-image",
        type=Path,
        metavar="FILE",
        help="a disk (raw, qcow2) that boots from BIOS with a console on ttyS0, or a bzImage",
    )
    group.add_argument("--guest-initrd", type=Path, metavar="FILE", help="with a bzImage")
    group.add_argument(
        "--guest-modules",
        type=Path,
        metavar="DIR",
        help="run 3: lib/modules/RELEASE of the bzImage, for igb and the console",
    )
    group.add_argument(
        "--guest-cmdline",
        metavar="WORDS",
        help=f"with a bzImage (default: {GUEST_CMDLINE}; run 3: in addition to ours)",
    )


def chosen_guest(arguments: argparse.Namespace) -> GuestImage | None:
    """The guest that the options name, None without. Raises UsageError naming what is wrong."""
    given, initrd, cmdline, modules = (
        arguments.guest_image,
        arguments.guest_initrd,
        arguments.guest_cmdline,
        arguments.guest_modules,
    )
    if given is None:
        if initrd or cmdline or modules:
            raise UsageError(
                "--guest-initrd, --guest-cmdline and --guest-modules go with --guest-image BZIMAGE"
            )
        return None
    where, magic = DEFAULT.image_magic
    if not _head(given).startswith(magic, where):
        if initrd or cmdline or modules:
            raise UsageError(f"{given} is a disk: it has its own initrd, modules and command line")
        return GuestImage(disk=given.expanduser().resolve())
    if initrd:
        _head(initrd)
    return GuestImage(
        kernel=given.expanduser().resolve(),
        initrd=initrd.expanduser().resolve() if initrd else None,
        cmdline=cmdline or "",
        modules=modules.expanduser().resolve() if modules else None,
    )


def _head(file: Path) -> bytes:
    try:
        with file.expanduser().open("rb") as opened:
            return opened.read(1024)
    except OSError as error:
        raise UsageError(f"cannot read the guest's {file}: {error.strerror}") from error

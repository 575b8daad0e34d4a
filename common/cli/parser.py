# SPDX-License-Identifier: GPL-2.0-only
"""The command line: a contract, scripts rely on it. Exit statuses are in common/errors.py."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from common import __version__
from common.arch.known import ARCHITECTURES, DEFAULT
from common.cli.kernel_options import arch_option, kernel_options
from common.cli.options import (
    accelerator_option,
    append_option,
    chain_option,
    connect_option,
    gate_options,
    guest_options,
    hours,
    jobs_option,
    lane_option,
    load_option,
    machine_options,
    matrix_options,
    positive,
    qemu_option,
    splats_option,
    sweep_options,
    workload_option,
)
from common.errors import Exit, StagesError
from common.host.qemu_binary import choose
from common.stage.declaration import WORKLOADS
from common.text import printable

REPORT_FORMATS = (
    "text",
    "mail",
    "reply",
    "html",
    "json",
    "junit",
    "kcidb",
    "ktap",
    "state",
    "svg",
    "testgrid",
)

_EPILOG = """\
exit status: 0 pass, XFAIL or XPASS, 1 a check failed or a stage is BROKEN, 2 usage, 3 the
harness or the machine failed, 4 nothing can run here, 5 a kernel crashed, 6 timeout, 7 `judge`:
the run was made by different code, 125 the kernel did not build
"""

_SOAK_EPILOG = """\
Repeat the command to resume after an interruption.

exit status: 0 every trial was right; 1 at least one was wrong; 3 none was wrong, but at least one
ended DISTURBED or with a harness error, or trial after trial could not be run; 130 interrupted,
whatever the table says; 2, 4, 125 as with every command
"""


class _Parser(argparse.ArgumentParser):
    """Its errors are one sentence, and where help is; usage of 18 lines hides what is wrong."""

    def error(self, message: str) -> NoReturn:
        line = " ".join(printable(message).split())
        self.exit(Exit.USAGE, f"{self.prog}: {line} (see `{self.prog} --help`)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line. Each verb names its function in `run`."""
    parser = _Parser(
        prog="kexec-stages",
        description="Shows, with evidence, that a VM and its devices survive a kexec.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"kexec-stages {__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = _verb(verbs, "demo", "run:demo", "all stages with their controls; tables; report")
    machine_options(demo)
    jobs_option(demo)
    load_option(demo)
    append_option(demo)
    test = _verb(verbs, "test", "test:test", "the test suite (extra arguments go to pytest)")
    test.add_argument(
        "--mutants",
        "--sabotage",
        nargs="*",
        metavar="MUTANT",
        help="instead: apply each mutant of tests/mutants (all, or those named) to a copy of this"
        " checkout; the designated check must fail. For the path of a kernel patch, or of a folder"
        " of them: any check may catch it",
    )
    test.add_argument(
        "--stage",
        type=int,
        default=1,
        metavar="N",
        help="the stage for patches given by path (default 1)",
    )
    test.set_defaults(further=())

    run = _verb(verbs, "run", "run:run", "one stage, with its controls")
    run.add_argument("stage", type=int, metavar="N", help="the stage")
    which = run.add_mutually_exclusive_group()
    which.add_argument("--control", action="append", metavar="NAME", help="only this control")
    which.add_argument("--no-controls", action="store_true", help="only the main run")
    workload_option(run)
    lane_option(run)
    chain_option(run)
    often = run.add_mutually_exclusive_group()
    often.add_argument(
        "--repeat", type=positive, default=1, metavar="K", help="do the main run K times"
    )
    often.add_argument(
        "--layouts",
        type=positive,
        metavar="K",
        help="do the main run K times, each with the kernels at other addresses (KASLR); a usage"
        " error if the kernels cannot do that; the report says how many layouts there were",
    )
    guest_options(run)
    machine_options(run)
    jobs_option(run)
    load_option(run)
    append_option(run)
    splats_option(run)

    gate = _verb(verbs, "gate", "gate:gate", "stages in order, stop at the first that fails; KTAP")
    gate_options(gate)
    machine_options(gate)
    jobs_option(gate)
    append_option(gate)
    splats_option(gate)

    soak = _verb(
        verbs, "soak", "soak:soak", "main runs and all controls, round after round; a table"
    )
    soak.epilog, soak.formatter_class = _SOAK_EPILOG, argparse.RawDescriptionHelpFormatter
    soak.add_argument("--stage", action="append", type=int, metavar="N", help="default: all")
    soak.add_argument("--workload", choices=WORKLOADS, help="default: all workloads of the stages")
    soak.add_argument("--no-controls", action="store_true", help="only main runs")
    limit = soak.add_mutually_exclusive_group()
    limit.add_argument(
        "--rounds", type=positive, metavar="K", help="rounds in all; default: until Ctrl-C"
    )
    limit.add_argument("--hours", type=hours, metavar="H", help="hours of trials in all")
    soak.add_argument(
        "--name", help="default: derived from the options, so the same options resume it"
    )
    begin = soak.add_mutually_exclusive_group()
    begin.add_argument(
        "--fresh", action="store_true", help="discard the results stored under that name"
    )
    begin.add_argument("--table", action="store_true", help="print the table so far; run nothing")
    machine_options(soak)
    load_option(soak)
    append_option(soak)

    sweep = _verb(
        verbs, "sweep", "sweep:sweep", "fail each call wherever it can fail; damage each record"
    )
    sweep_options(sweep)
    kernel_options(sweep)
    accelerator_option(sweep)
    qemu_option(sweep)
    connect_option(sweep)

    matrix = _verb(verbs, "matrix", "matrix:matrix", "kernels x stages x controls; a table")
    matrix_options(matrix)
    machine_options(matrix, sides=False)

    report = _verb(verbs, "report", "stored:report", "the report of stored runs")
    report.add_argument(
        "run", metavar="RUN", nargs="+", help="a run folder, its name, a bundle, or `latest`"
    )
    report.add_argument("--format", choices=REPORT_FORMATS, default="text")
    report.add_argument(
        "--output", type=Path, metavar="FILE", help="instead of stdout; testgrid: a folder"
    )
    mail = report.add_argument_group("mail, reply")
    mail.add_argument("--from", dest="sender", metavar="ADDRESS", help="default: git's user")
    mail.add_argument("--to", action="append", default=[], metavar="ADDRESS")
    mail.add_argument("--cc", action="append", default=[], metavar="ADDRESS")
    mail.add_argument("--in-reply-to", metavar="MSGID")
    mail.add_argument(
        "--full", action="store_true", help="mail: all fifteen fields, instead of at most 150 lines"
    )
    mail.add_argument(
        "--reply-to-file",
        type=Path,
        metavar="FILE",
        help="reply: the patch mail or cover letter to answer (default: stdin)",
    )
    mail.add_argument(
        "--answer",
        action="append",
        default=[],
        metavar="WORDS=CHECK",
        help="reply: CHECK answers these words of the mail, in addition to those of the claims",
    )
    splats_option(report)
    report.add_argument(
        "--about", type=Path, metavar="FILE", help="state: a Markdown file that says what was run"
    )
    report.add_argument(
        "--origin", metavar="NAME", help="kcidb: the submitting CI system; [a-z0-9_]"
    )
    judge = _verb(verbs, "judge", "stored:judge", "recompute the verdict from the raw files alone")
    judge.add_argument("run", metavar="RUN", help="a run or a bundle")
    splats_option(judge)
    judge.add_argument("--seal", metavar="HEX", help="refuse a run whose seal differs")
    bundle = _verb(
        verbs, "bundle", "stored:bundle", "pack a run into one file, for `judge` elsewhere"
    )
    bundle.add_argument("run", metavar="RUN", help="a run folder, its name, or `latest`")
    bundle.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: RUN.zip, here")

    compare = _verb(verbs, "compare", "stored:compare", "what changed between two runs of a stage")
    compare.add_argument("before", metavar="RUN", help="the earlier run")
    compare.add_argument("after", metavar="RUN", help="the later run; exit status 1 if it is worse")

    doctor = _verb(
        verbs,
        "doctor",
        "doctor:doctor",
        "what this host has, what is missing, and how to get it",
    )
    arch_option(doctor)
    listing = _verb(verbs, "list", "stored:list_stages", "stages, claims, checks and controls")
    listing.add_argument(
        "--schema",
        nargs="?",
        const="record",
        choices=("record", "report"),
        help="the JSON Schema of the record, or of `report --format json`",
    )

    arch_option(listing)
    listing.add_argument(
        "--promises",
        action="store_true",
        help="each claim with the checks, controls and mutants behind it, as Markdown",
    )
    listing.add_argument(
        "--promised",
        nargs="?",
        const="",
        metavar="WHERE",
        help="what is expected of a kernel, check by check, before anything is run: of a tree, a"
        " tarball, a bzImage or a package (default: the package that the stages use)",
    )
    listing.add_argument(
        "--series",
        default="none",
        help="with --promised: ours, none (default), a folder or a mailbox",
    )

    kernel = verbs.add_parser("kernel", help="build, list and prune kernels")
    actions = kernel.add_subparsers(title="actions", metavar="ACTION", required=True)
    build = _verb(actions, "build", "kernels:build", "the kernels of a stage")
    build.add_argument("--stage", type=int, default=1, metavar="N")
    workload_option(build)
    lane_option(build)
    kernel_options(build)
    each = _verb(
        actions, "each", "kernels:each", "build, boot and live-update each patch of a series"
    )
    each.add_argument("--stage", type=int, default=2, metavar="N", help="default: 2")
    each.add_argument(
        "--from",
        dest="first",
        type=positive,
        default=1,
        metavar="K",
        help="begin with the K-th patch, the others before it applied",
    )
    machine_options(each)
    selftests = _verb(
        actions,
        "selftests",
        "kernels:selftests",
        "iommufd selftests and page table KUnit tests, without and with a series",
    )
    selftests.add_argument("--stage", type=int, default=3, metavar="N", help="default: 3")
    machine_options(selftests)
    _verb(actions, "list", "kernels:list_cache", "what the kernel cache holds")
    prune = _verb(actions, "prune", "kernels:prune", "remove kernels from the cache")
    amount = prune.add_mutually_exclusive_group(required=True)
    amount.add_argument(
        "--keep", type=int, metavar="N", help="remove all but the N most recently used"
    )
    amount.add_argument(
        "--older-than", type=float, metavar="DAYS", help="remove those not used for so long"
    )
    amount.add_argument("--all", action="store_true", help="remove all that are not in use")

    bench = _verb(verbs, "bench", "bench:bench", "wall time against upstream's luo_kexec_simple")
    bench.add_argument("--runs", type=positive, default=5, metavar="N")
    bench.add_argument(
        "--ways", action="store_true", help="instead: several ways to get QEMU's guest across"
    )
    bench.add_argument(
        "--incoming-boot",
        action="store_true",
        help="instead: the incoming kernel's boot under TCG, with and without the outgoing one's"
        " text as memory",
    )
    bench.add_argument(
        "--stage", type=int, action="append", metavar="N", help="with --incoming-boot"
    )
    bench.add_argument(
        "--word",
        action="append",
        default=[],
        metavar="WORD",
        help="with --incoming-boot: a kernel parameter for both sides",
    )
    bench.add_argument(
        "--sizes", default="128", metavar="MIB,MIB", help="with --ways: RAM of the guest"
    )
    bench.add_argument(
        "--results", type=Path, metavar="FILE", help="where to store results; resumes from there"
    )
    qemu_option(bench)
    bench.add_argument("--svg", type=Path, metavar="FILE", help="a chart of the results")
    shell = _verb(
        verbs, "shell", "shell:shell", "start a stage's machine, with a shell on its console"
    )
    shell.add_argument("stage", type=int, metavar="N", help="the stage")
    machine_options(shell)
    return parser


def _verb(
    verbs: argparse._SubParsersAction[_Parser], name: str, target: str, help: str
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    verb.set_defaults(target=target)
    return verb


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; words that only `test` takes are pytest's."""
    parser = build_parser()
    arguments, further = parser.parse_known_args(argv)
    if further and (not hasattr(arguments, "further") or arguments.mutants is not None):
        parser.error(f"unrecognized arguments: {' '.join(further)}")
    arguments.further = further
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    try:
        arguments = _parse(argv)
        signal.signal(signal.SIGTERM, _terminated)
        if hasattr(arguments, "qemu"):
            choose(arguments.qemu, ARCHITECTURES[getattr(arguments, "arch", DEFAULT.name)])
        module, function = arguments.target.split(":")
        verb = getattr(importlib.import_module(f"common.cli.{module}"), function)
        status = int(verb(arguments))
        sys.stdout.flush()  # a full disk is noticed here, not when Python shuts down
        return status
    except StagesError as error:
        lines = [printable(line) for line in (f"kexec-stages: {error}", *error.details)]
        print(*lines, sep="\n  ", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("kexec-stages: interrupted; nothing was left behind", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        _drop_output()  # the reader (head, less) has gone
        return Exit.HARNESS
    except OSError as error:
        if error.filename is None:
            _drop_output()
        what = printable(str(error.filename or "output"))
        print(f"kexec-stages: {what}: {error.strerror}", file=sys.stderr)
        return Exit.HARNESS


def _drop_output() -> None:
    """Python must not complain at shutdown about what cannot be written."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

# SPDX-License-Identifier: GPL-2.0-only
"""Lanes: the same stage on kernels of other configurations.

In the *debug* lane they look for their own mistakes. KASAN, lockdep, DEBUG_VM, kmemleak and page
poisoning make a kernel some ten times slower and larger, so that every bound is ten times as
long, and frames come at a lower rate. What they find is on the console, where `no_splat` looks
for it; kmemleak is asked on each side.

In the *server* lane they have what kernels of distributions have: memory in several NUMA nodes,
struct pages that are initialised late (of the memory behind each node's first 128 MiB, so that the
machine has to be larger), large pages everywhere, swap, memory cgroups, modules. NUMA balancing is
off: it moves a guest's pages to where its CPU is. Struct pages that were never initialised are
poisoned there (DEBUG_VM), and the kernel stops at the first that is used.

Linux 7.3.4 does not pass there: its incoming kernel frees pages of a block before it sets the
block's migratetype (mm/page_alloc.c: __add_to_free_list, "page type is 1, passed migratetype is
0").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from common.checks.live_update import INCOMING, OUTGOING, no_data, outcome
from common.checks.model import Check, Claim, Outcome, Said
from common.errors import UsageError
from common.paths import CHECKOUT
from common.record.evidence import Trial
from common.stage.declaration import Size, Stage

Lane = Literal["default", "debug", "server"]
LANES: tuple[Lane, ...] = ("default", "debug", "server")

_CONFIGS = CHECKOUT / "kernel" / "configs"
_PATIENCE = 10
_MEMORY_MIB = 1536
# More than a section of 128 MiB to each node besides what the stage needs.
_SERVER_MEMORY_MIB = 768
_SERVER_NODES = 2
_CMDLINE = (
    # KASAN's shadow, an eighth of all memory, comes from the scratch area in the incoming kernel.
    "kho_scratch=32M,640M,32M",
    "page_poison=1",
    "kasan_multi_shot",
    # Without checks of its own SLUB keeps pointers to what it has given away in each CPU's sheaf,
    # and kmemleak takes them for references: it did not see a leak of some twenty objects.
    "slab_debug=F",
)


def _no_leak(trial: Trial) -> Outcome:
    sides = [trial.side(name) for name in (OUTGOING, INCOMING)]
    found = [side.number("kmemleak.objects") if side else None for side in sides]
    if None in found:
        return no_data("fact kmemleak.objects on both sides", expected="0 and 0")
    first = [side.facts.get("kmemleak.first", "") for side in sides if side]
    return outcome(
        found == [0, 0],
        expected="0 and 0 unreferenced objects",
        seen=f"{found[0]} and {found[1]} {' '.join(first)}".rstrip(),
        evidence="facts kmemleak.*, console.log",
    )


def _kasan_ran(trial: Trial) -> Outcome:
    texts = [side.facts.get("kernel.debug", "") for side in trial.sides]
    return outcome(
        len(texts) == 2 and all(text == "kasan lockdep kmemleak" for text in texts),
        expected="kasan lockdep kmemleak, on both sides",
        seen="; ".join(texts) or "nothing",
        evidence="fact kernel.debug",
    )


def _server_ran(trial: Trial) -> Outcome:
    """Each node's struct pages were initialised late, in both kernels."""
    nodes = [side.facts.get("kernel.nodes", "none") for side in trial.sides]
    starts = [boot.t for boot in trial.console.boots]
    late = [[node for t, node in trial.console.late_pages if _nth(starts, t) == n] for n in (1, 2)]
    wanted = list(range(_SERVER_NODES))
    return outcome(
        nodes == [f"0-{_SERVER_NODES - 1}"] * 2 and [sorted(one) for one in late] == [wanted] * 2,
        expected=f"{_SERVER_NODES} nodes in both kernels, struct pages of each initialised late",
        seen=f"nodes {' and '.join(nodes) or 'unknown'}; late in nodes"
        f" {', '.join(map(str, late[0])) or 'none'}, then {', '.join(map(str, late[1])) or 'none'}",
        evidence="facts kernel.nodes; console.log, 'deferred pages initialised'",
    )


def _nth(starts: Sequence[int], t: int) -> int:
    """Which kernel spoke at `t`, counted from 1."""
    return sum(start <= t for start in starts)


SERVER_CLAIM = Claim(
    "kernels configured like a server's",
    "Both kernels are configured like those of servers.",
    (
        Check(
            "server_kernels",
            "Were there several nodes, and struct pages that are initialised late?",
            _server_ran,
        ),
    ),
)
CLAIM = Claim(
    "debug kernels report nothing",
    "Both kernels, with their debug checks on, report no error.",
    (
        Check("debug_kernels", "Were KASAN, lockdep and kmemleak active?", _kasan_ran),
        Check("no_leak", "Does kmemleak find nothing?", _no_leak),
    ),
    (Said(r"KASAN, lockdep[^.;]{0,100}: no report"),),
)


def in_lane(stage: Stage, lane: Lane) -> Stage:
    """The stage as it is run and judged in that lane.

    Raises UsageError for a workload that the debug lane does not have.
    """
    match lane:
        case "default":
            return stage
        case "server":
            return _server(stage)
        case "debug":
            return _debug(stage)


def _server(stage: Stage) -> Stage:
    return replace(
        stage,
        config=replace(stage.config, lane="server", extra_fragments=(_CONFIGS / "server.config",)),
        claims=(*stage.claims, SERVER_CLAIM),
        controls=tuple(c for c in stage.controls if not c.own_kernels),
        cmdline=(*stage.cmdline, f"numa=fake={_SERVER_NODES}", "numa_balancing=disable"),
        size=_larger(stage, "server", _SERVER_MEMORY_MIB, patience=1),
    )


def _debug(stage: Stage) -> Stage:
    if stage.workload != "vmm":
        raise UsageError(
            f"the debug lane has no --workload {stage.workload}: a Linux guest on an emulated CPU"
            " under KASAN is too slow"
        )
    kept = tuple(word for word in stage.cmdline if not word.startswith("kho_scratch="))
    return replace(
        stage,
        config=replace(
            stage.config,
            lane="debug",
            patience=_PATIENCE,
            extra_fragments=(_CONFIGS / "debug.config",),
        ),
        claims=(*stage.claims, CLAIM),
        controls=tuple(c for c in stage.controls if c.name in stage.debug_controls),
        options=tuple(
            replace(option, default=stage.debug_options.get(option.parameter, option.default))
            for option in stage.options
        ),
        cmdline=(*kept, *_CMDLINE, f"stage.patience={_PATIENCE}"),
        size=_larger(stage, "debug", _MEMORY_MIB, patience=_PATIENCE),
    )


def _larger(
    stage: Stage, lane: Lane, memory_mib: int, *, patience: int
) -> Callable[[Mapping[str, int]], Size]:
    def size(options: Mapping[str, int]) -> Size:
        plain = stage.size({**options, "patience": patience})
        words = f"{plain.sum} + {lane} lane {memory_mib} MiB"
        return Size(plain.machine_mib + memory_mib, words)

    return size

# SPDX-License-Identifier: GPL-2.0-only
"""Config fragments: what is asked for, and whether a kernel's .config grants it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.paths import cache_root
from kernel.errors import ConfigSymbolLost, MissingKconfig, SourceError
from kernel.source import manifest as manifests

# Without these there is nothing to demonstrate: a tree that lacks them is skipped, not broken.
ESSENTIAL = ("KEXEC_HANDOVER", "LIVEUPDATE")

_SET = re.compile(r'CONFIG_(\w+)=("(?:[^"\\]|\\.)*"|[^\s"#]+)(?:\s+#.*)?')
_UNSET = re.compile(r"# CONFIG_(\w+) is not set")
_DEFINED = re.compile(r"^[ \t]*(?:menu)?config[ \t]+(\w+)[ \t]*(?:#.*)?$", re.MULTILINE)


@dataclass(frozen=True)
class Request:
    """One line of a fragment: CONFIG_symbol shall be `value` ("n": not set)."""

    symbol: str
    value: str
    fragment: Path
    line: int

    def __str__(self) -> str:
        if self.value == "n":
            return f"# CONFIG_{self.symbol} is not set"
        return f"CONFIG_{self.symbol}={self.value}"


@dataclass(frozen=True)
class Loss:
    """A request that the final .config does not grant; `actual` is what it says."""

    request: Request
    actual: str
    defined: bool

    def __str__(self) -> str:
        where = f"{self.request.fragment}:{self.request.line}"
        if not self.defined:
            return f"{where}: {self.request}, but this tree has no such symbol"
        return f"{where}: {self.request}, but the .config says {self.actual}"


def parse_config(text: str) -> dict[str, tuple[str, int]]:
    """Symbol without CONFIG_ -> (value, line number from 1), as in a .config or a fragment.

    The value is "n" for "is not set"; a later line wins.
    """
    found: dict[str, tuple[str, int]] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if match := _SET.fullmatch(line):
            found[match[1]] = (match[2], number)
        elif match := _UNSET.fullmatch(line):
            found[match[1]] = ("n", number)
    return found


def requests(fragments: Sequence[Path]) -> dict[str, Request]:
    """Symbol without CONFIG_ -> what the fragments ask for; a later fragment wins.

    Raises SourceError.
    """
    wanted: dict[str, Request] = {}
    for fragment in fragments:
        try:
            text = fragment.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"cannot read the config fragment {fragment}: {error}") from error
        for number, raw in enumerate(text.splitlines(), start=1):
            line = raw.strip()
            if line and not line.startswith("#") and not _SET.fullmatch(line):
                raise SourceError(
                    f"{fragment}:{number}: {line!r} is not a line of a config fragment"
                )
        for symbol, (value, number) in parse_config(text).items():
            wanted[symbol] = Request(symbol, value, fragment, number)
    return wanted


def merged(wanted: Iterable[Request]) -> str:
    """The requests as one fragment, sorted: equal for equal requests."""
    return "".join(f"{request}\n" for request in sorted(wanted, key=lambda r: r.symbol))


def losses(wanted: Iterable[Request], config: str, defined: set[str]) -> list[Loss]:
    """The requests that `config` does not grant, given the symbols that the tree defines."""
    actual = parse_config(config)
    lost: list[Loss] = []
    for request in wanted:
        value = actual.get(request.symbol, ("n", 0))[0]
        if value != request.value:
            lost.append(Loss(request, f"{value!r}", request.symbol in defined))
    return lost


def defined_symbols(tree: Path) -> set[str]:
    """Every symbol that some Kconfig file of the tree defines."""
    found: set[str] = set()
    for folder, dirs, names in os.walk(tree):
        dirs[:] = [d for d in dirs if not d.startswith(".")]
        for name in names:
            if name.startswith("Kconfig"):
                text = Path(folder, name).read_text(errors="replace")
                found.update(_DEFINED.findall(text))
    return found


def defined_by_patches(patches: Iterable[Path]) -> set[str]:
    """Every symbol that some patch adds to a Kconfig file."""
    added = (
        line[1:]
        for patch in patches
        for line in patch.read_text(errors="replace").splitlines()
        if line.startswith("+")
    )
    return set(_DEFINED.findall("\n".join(added)))


def relevant(content: Mapping[str, str], makefile: str) -> str:
    """A digest of the files of a tree that a .config can depend on, out of its manifest.

    `makefile` is the architecture's own.
    """
    chosen = {
        name: value
        for name, value in content.items()
        if name.rpartition("/")[2].startswith("Kconfig")
        or name.startswith("scripts/")
        or name.endswith(".config")
        or name in ("Makefile", makefile)
    }
    return manifests.digest(chosen)


def stored_path(digest: str) -> Path:
    """Where the final .config of that digest is kept."""
    return cache_root() / "configs" / f"{digest[:32]}.config"


def stored(path: Path) -> str | None:
    """A final .config made earlier; None where there is none."""
    try:
        return path.read_text() or None
    except FileNotFoundError:
        return None


def store(path: Path, text: str) -> None:
    """The final .config stands at `path`, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def require_essential(wanted: dict[str, Request], tree: Path, label: str) -> None:
    """Nothing when the tree knows the essential symbols asked for; else MissingKconfig."""
    essential = [symbol for symbol in ESSENTIAL if symbol in wanted]
    if not essential:
        return
    defined = defined_symbols(tree)
    if missing := [symbol for symbol in essential if symbol not in defined]:
        raise MissingKconfig(missing, label)


def require_defined(wanted: dict[str, Request], tree: Path, label: str) -> None:
    """Nothing when the tree knows all symbols that shall be set; else ConfigSymbolLost.

    Cheaper than finding out by make, and all of them are named at once.
    """
    defined = defined_symbols(tree)
    lost = [
        Loss(request, "nothing", False)
        for request in wanted.values()
        if request.value != "n" and request.symbol not in defined
    ]
    if lost:
        raise _lost(lost, label)


def require_granted(wanted: dict[str, Request], config: str, tree: Path, label: str) -> None:
    """Nothing when `config` grants all that is asked for; else ConfigSymbolLost names the rest."""
    lost = losses(wanted.values(), config, set())
    if not lost:
        return
    raise _lost(losses(wanted.values(), config, defined_symbols(tree)), label)


def _lost(lost: Sequence[Loss], label: str) -> ConfigSymbolLost:
    first = lost[0]
    more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
    why = "is unknown to this tree" if not first.defined else "did not survive olddefconfig"
    return ConfigSymbolLost(
        f"CONFIG_{first.request.symbol}={first.request.value} of {first.request.fragment.name} "
        f"{why}{more}: {label}",
        [loss.request.symbol for loss in lost],
        details=[str(loss) for loss in lost],
    )

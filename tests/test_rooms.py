# SPDX-License-Identifier: GPL-2.0-only
"""The rooms of common/: each imports only those before it. The layout is the architecture."""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator
from pathlib import Path

import pytest

from common.paths import CHECKOUT

GROUND = ("errors", "paths", "text", "__init__")
ROOMS = (
    *("arch", "record", "checks", "host", "machine", "stage", "guest", "dma"),
    *("judge", "run", "report", "suites", "cli"),
)
OF_A_STAGE = frozenset(
    {"arch", "record", "checks", "host", "machine", "stage", "guest", "dma", *GROUND}
)
# A kernel's layout is measured in kernel/ and kept in the record.
OF_KERNEL = frozenset({"common.errors", "common.paths", "common.record.cpus.kernel_layout"})
# What no stored run may need: `judge` and `report` work where these are not installed.
OF_THE_MACHINE = frozenset({"libvirt", "libvirt_qemu", "pexpect"})


def imports(path: Path, *, without: Container[int] = ()) -> Iterator[str]:
    """Full names of what a module imports; a name out of a package is its module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if getattr(node, "lineno", 0) in without:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = CHECKOUT.joinpath(*node.module.split("."), alias.name)
                module = full.with_suffix(".py").exists() or full.is_dir()
                yield f"{node.module}.{alias.name}" if module else node.module


def room(module: str) -> str:
    """The room of a module of common/, or its name where it stands on the ground."""
    return module.split(".")[1] if "." in module else "__init__"


def modules(folder: str) -> list[Path]:
    return sorted((CHECKOUT / folder).glob("**/*.py"))


def shown(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def upward(path: Path, imported: str) -> bool:
    """True for an import of a room that stands after the module's own."""
    own, other = room(".".join(path.relative_to(CHECKOUT).with_suffix("").parts)), room(imported)
    if own in ("__main__", *GROUND):
        return own in GROUND and other not in GROUND
    return other not in GROUND and ROOMS.index(other) > ROOMS.index(own)


@pytest.mark.parametrize("path", modules("common"), ids=shown)
def test_a_room_imports_only_those_before_it(path: Path) -> None:
    assert [i for i in imports(path) if i.startswith("common.") and upward(path, i)] == []


def test_an_import_of_a_later_room_is_seen() -> None:
    assert upward(CHECKOUT / "common" / "record" / "console.py", "common.stage.declaration")
    assert not upward(CHECKOUT / "common" / "stage" / "lane.py", "common.record.evidence")


@pytest.mark.parametrize("path", modules("stages"), ids=shown)
def test_a_stage_declares_and_imports_no_other(path: Path) -> None:
    if path.name.startswith("test_"):
        return
    found = list(imports(path))
    own = {package.name for package in path.parent.parent.iterdir() if package.is_dir()}
    stages = {p.parent.name for p in modules("stages") if p.name == "stage.py"}
    assert [i for i in found if i.startswith("common.") and room(i) not in OF_A_STAGE] == []
    assert [i for i in found if i.split(".")[0] in stages - own] == []


@pytest.mark.parametrize("path", modules("kernel"), ids=shown)
def test_kernel_stands_alone(path: Path) -> None:
    found = [i for i in imports(path) if i.startswith("common.") and room(i) != "arch"]
    assert [i for i in found if i not in OF_KERNEL] == []


def at_start(path: Path) -> Iterator[str]:
    """What importing a module imports: not what its functions do, nor its types alone."""
    tree = ast.parse(path.read_text())
    later: list[ast.stmt] = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    later += [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n)]
    inside = {line for n in later for line in range(n.lineno, (n.end_lineno or n.lineno) + 1)}
    yield from imports(path, without=inside)


def reached(start: list[Path]) -> dict[Path, Path]:
    """Every module of ours that these import, and theirs, with who imported it first."""
    found: dict[Path, Path] = {path: path for path in start}
    queue = list(start)
    while queue:
        path = queue.pop()
        for name in at_start(path):
            target = CHECKOUT.joinpath(*name.split(".")).with_suffix(".py")
            if target.exists() and target not in found:
                found[target] = path
                queue.append(target)
    return found


def test_a_stored_run_is_judged_without_libvirt_and_pexpect() -> None:
    verbs = [CHECKOUT / "common" / "cli" / f"{name}.py" for name in ("parser", "stored")]
    seen = reached([*verbs, *(p for p in modules("stages") if not p.name.startswith("test_"))])
    assert {
        f"{shown(path)} (imported by {shown(by)}): {name}"
        for path, by in seen.items()
        for name in at_start(path)
        if name.split(".")[0] in OF_THE_MACHINE
    } == set()


@pytest.mark.parametrize("path", [p for p in modules("common") if "cli" not in p.parts], ids=shown)
def test_argparse_stays_in_cli(path: Path) -> None:
    """But for programs of their own, which have a main()."""
    assert "argparse" not in imports(path) or '__name__ == "__main__"' in path.read_text()


def test_no_folder_is_crowded() -> None:
    files = [p.name for p in (CHECKOUT / "common").iterdir() if p.is_file()]
    assert len(files) <= 5, files
    crowded = {
        shown(folder): len(entries)
        for folder in (CHECKOUT / "common").glob("**/*/")
        if folder.name != "__pycache__"
        and len(entries := [p for p in folder.iterdir() if p.name != "__pycache__"]) > 16
    }
    assert crowded == {}

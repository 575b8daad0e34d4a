# SPDX-License-Identifier: GPL-2.0-only
"""The base that a series names, compared with the user's git tree, which is only read."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from common.errors import HarnessError
from common.suites.mailed.mailbox import Series
from common.suites.mailed.review import Entry

NAME = "base"
_SECONDS = 600.0
_MOST = 5000
"""Commits since the base of which the patch ids are looked at."""


def check_base(series: Series, tree: Path | None) -> Entry:
    """Whether base-commit and prerequisites are in the tree.

    Never "fail": what does not stand on it does not apply, and that is told by the build.
    """
    lines = list(_lines(series, tree))
    good = all(line.startswith("+ ") for line in lines)
    summary = next((line for line in lines if line.startswith("- ")), lines[0])[2:]
    return Entry(
        tool=NAME,
        status="pass" if good else "warn",
        summary=summary,
        details="\n".join(line[2:] for line in lines),
    )


def _lines(series: Series, tree: Path | None) -> Iterator[str]:
    """What was found, "+ " before what is as it should be, "- " before what is not."""
    if series.base is None:
        yield "- the mails name no base-commit"
    if tree is None or _git(tree, "rev-parse", "--git-dir") is None:
        yield "- the kernel's source is not a git tree: cannot look for base and prerequisites"
        return
    base = series.base and _git(tree, "rev-parse", "--verify", "-q", f"{series.base}^{{commit}}")
    if series.base is not None:
        yield _stands(tree, series.base, base)
    if series.prerequisites and not base:
        yield f"- {len(series.prerequisites)} prerequisites: looked for from the base on only"
    elif base:
        known = _patch_ids(tree, base)
        for wanted in series.prerequisites:
            there = wanted in known
            yield f"{'+' if there else '-'} prerequisite {wanted[:12]}: " + (
                known[wanted][:12] if there else "no commit since the base has that patch id"
            )


def _stands(tree: Path, named: str, base: str | None) -> str:
    if base is None:
        return f"- base-commit {named[:12]} is not in the tree"
    if _git(tree, "merge-base", "--is-ancestor", base, "HEAD") is None:
        return f"- base-commit {named[:12]} is in the tree, and HEAD does not stand on it"
    since = _git(tree, "rev-list", "--count", f"{base}..HEAD") or "0"
    return f"+ HEAD stands on base-commit {named[:12]}, {since} commits after it"


def _patch_ids(tree: Path, base: str) -> dict[str, str]:
    """Patch id -> commit, of what was committed since."""
    log = _git(tree, "log", "-p", "--no-merges", f"--max-count={_MOST}", f"{base}..HEAD")
    done = _run(tree, "patch-id", "--stable", given=log or "")
    words = (line.split() for line in done.stdout.splitlines())
    return {one[0]: one[1] for one in words if len(one) == 2}


def _git(tree: Path, *words: str) -> str | None:
    """What git says; None where it fails."""
    done = _run(tree, *words)
    return done.stdout.strip() if done.returncode == 0 else None


def _run(tree: Path, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    # safe.directory: a tree of another user's is only read; fsmonitor would run a program
    safe = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false")
    try:
        return subprocess.run(
            ["git", "--no-optional-locks", *safe, *words],
            cwd=tree.expanduser(),
            input=given,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HarnessError(f"git cannot look into {tree}: {error}") from error

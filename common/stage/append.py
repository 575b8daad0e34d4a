# SPDX-License-Identifier: GPL-2.0-only
"""The user's kernel parameters for both sides: `--append "numa=fake=2 init_on_free=1"`.

They stand behind ours. The incoming kernel's command line is the outgoing one's with more behind
it, so that both have them. A word that would take from the harness what it stands on is refused;
one of the user's replaces ours only where `REPLACED` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from common.errors import UsageError
from common.stage.declaration import Stage

REPLACED = frozenset({"kho_scratch"})
"""Parameters of a stage that the user may choose: ours is left out then."""
_LONGEST = 1024
"""Characters. A command line of x86 has 2048 (COMMAND_LINE_SIZE), of which ours need some 800."""
_BROKEN = {
    "console": "the harness reads both kernels' console on ttyS0",
    "quiet": "warnings would not reach the console, where checks look for them",
    "loglevel": "warnings would not reach the console, where checks look for them",
    "init": "the workload is /init of the initramfs",
    "rdinit": "the workload is /init of the initramfs",
    "root": "there is no root file system but the initramfs",
    "initrd": "the workload is in the initramfs",
    "noinitrd": "the workload is in the initramfs",
    "kho": "without kho=on nothing is handed over",
    "liveupdate": "without liveupdate=on there is no /dev/liveupdate",
    "--": "what follows it goes to /init, not to the kernel",
}


def check(words: Sequence[str], stages: Iterable[Stage]) -> None:
    """Nothing; raises UsageError for a word that would break the harness or one of the stages."""
    for word in words:
        _check_word(word)
    for stage in stages:
        ours = {_key(word): word for word in stage.cmdline if _key(word) not in REPLACED}
        for word in words:
            if (mine := ours.get(_key(word))) and mine != word:
                raise UsageError(f"--append {word}: stage {stage.number} depends on its {mine}")
    if (length := len(" ".join(words))) > _LONGEST:
        raise UsageError(f"--append: {length} characters are more than {_LONGEST}")


def behind(ours: Sequence[str], words: Sequence[str]) -> tuple[str, ...]:
    """Our words, but for those that the user's replace, and the user's."""
    replaced = {_key(word) for word in words} & REPLACED
    return (*(word for word in ours if _key(word) not in replaced), *words)


def _check_word(word: str) -> None:
    if not (word.isascii() and word.isprintable()) or '"' in word:
        raise UsageError(f"--append {word!r}: a parameter must be printable ASCII, without quotes")
    key = _key(word)
    if key.startswith("stage."):
        raise UsageError(f"--append {word}: stage.* is reserved for the harness")
    if why := _BROKEN.get(key):
        raise UsageError(f"--append {word}: {why}")


def _key(word: str) -> str:
    """The parameter's name; to the kernel - and _ are the same in it (kernel/params.c:parameq)."""
    name = word.partition("=")[0]
    return name if name == "--" else name.replace("-", "_")

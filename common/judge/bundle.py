# SPDX-License-Identifier: GPL-2.0-only
"""A run in one file: a ZIP archive whose last 64 bytes are the digest of everything before them.

ZIP, because its archive comment lets a digest of the whole file stand in the file itself, and
every unzip still opens it: no byte is padding that nobody looks at. The same run gives the
same bytes (names in order, no times, no owners). The digest shows damage and careless edits;
against somebody who makes a new one stands the run's seal, which the mail of the run carries
(`judge --seal`).
"""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from common.errors import UsageError
from common.record.seal import seal_entries
from common.record.trial_files import MOST_FILES, MOST_TOTAL, SUMS
from common.text import printable

_COMMENT = b"kexec-stages bundle, sha256 of all bytes before: "
_HEX = 64
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that ZIP can say


def pack(folder: Path) -> bytes:
    """The archive of a sealed run: what SHA256SUMS names, and SHA256SUMS itself."""
    if not _plain(folder.name):
        raise UsageError(f"{folder.name!r} is not a folder name on every system: rename the run")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted([*seal_entries(folder), SUMS]):
            entry = zipfile.ZipInfo(f"{folder.name}/{name}", _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, (folder / name).read_bytes(), compresslevel=9)
        archive.comment = _COMMENT + b"0" * _HEX
    covered = buffer.getvalue()[:-_HEX]
    return covered + hashlib.sha256(covered).hexdigest().encode()


def unpack(path: Path, target: Path) -> Path:
    """The run's folder, written below `target`. Nothing is ever written elsewhere.

    Raises UsageError when the file is no bundle, when a byte of it was changed, or when it
    holds what a bundle never holds: paths that lead out of it, too many files or too large ones.
    """
    data = _whole(path)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            root = _check_entries(path, entries)
            for entry in entries:
                file = target / entry.filename
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("xb") as out:
                    out.write(archive.read(entry))
    except _BAD_ARCHIVE as error:
        raise UsageError(f"{path} is a damaged bundle: {error}") from None
    return target / root


# What zipfile raises on archives that were made to hurt.
_BAD_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    FileExistsError,
    NotADirectoryError,
)


def _whole(path: Path) -> bytes:
    """The file's bytes, after its digest was seen to be theirs."""
    if path.stat().st_size > MOST_TOTAL:
        raise UsageError(f"{path} is larger than a bundle may be ({MOST_TOTAL >> 20} MiB)")
    data = path.read_bytes()
    covered, digest = data[:-_HEX], data[-_HEX:]
    if hashlib.sha256(covered).hexdigest().encode() == digest:
        return data
    if data[:4] != b"PK\x03\x04" and not covered.endswith(_COMMENT):
        raise UsageError(f"{path} is neither a run folder nor a bundle")
    raise UsageError(f"{path} was edited or is damaged: its digest is not that of its bytes")


def _plain(name: str) -> bool:
    """Whether it can be typed and shown: no option, not hidden, nothing that steers a terminal."""
    return printable(name) == name and name[:1] not in ("-", ".")


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> str:
    """The name of the one folder that everything lies in."""
    if not entries or len(entries) > MOST_FILES:
        raise UsageError(f"{path}: {len(entries)} files are not what a bundle holds")
    if sum(entry.file_size for entry in entries) > MOST_TOTAL:
        raise UsageError(f"{path} would unpack to more than {MOST_TOTAL >> 20} MiB")
    names = [entry.orig_filename for entry in entries]
    for name in names:
        parts = PurePosixPath(name).parts
        if (
            len(parts) < 2
            or name != "/".join(parts)
            or parts[0] == "/"
            or ".." in parts
            or any(character in name for character in "\\\0\r\n")
        ):
            raise UsageError(f"{path} holds a file that no bundle has: {name!r}")
    roots = {PurePosixPath(name).parts[0] for name in names}
    if not all(map(_plain, roots)):
        raise UsageError(f"{path} holds a run whose name no bundle has: {min(roots)!r}")
    if len(roots) != 1 or len(set(names)) != len(names):
        raise UsageError(f"{path} holds more than one run, or a file twice")
    return roots.pop()

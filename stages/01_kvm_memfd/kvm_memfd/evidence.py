# SPDX-License-Identifier: GPL-2.0-only
"""What the host saw of stage 1, as the record has it; made by witness.py and files_witness.py."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from common.guest.evidence import RamEvidence, RamSeen
from common.record.dialogue import Stored
from common.record.evidence import Trial
from common.record.stored_file import Count, KhoSeen, Strict
from common.record.witnesses import Witnessed

FilesPoint = Literal["files-written", "files"]


class FilesSeen(Strict):
    """Of the small memfds and of KHO, in one update: an entry of files-witness.json."""

    pages: Count
    sha256: dict[FilesPoint, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]
    kho: KhoSeen


class Update(Stored):
    """What was seen of an update after the first of a chain."""

    ram: RamSeen
    files: FilesSeen


class MemfdEvidence(RamEvidence):
    """Of stage 1 with our own VMM."""

    files: FilesSeen
    later: tuple[Update, ...] = ()
    """Of a chain: the updates after the first."""

    def of_update(self, index: int) -> Witnessed:
        """See Witnessed."""
        if index == 0 or index > len(self.later):
            return super().of_update(index)
        return MemfdEvidence(blind=self.blind, **dict(self.later[index - 1]))


def files_of(trial: Trial) -> FilesSeen:
    """What was seen of the small memfds and of KHO."""
    return trial.seen(MemfdEvidence).files

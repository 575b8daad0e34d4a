# SPDX-License-Identifier: GPL-2.0-only
"""The verdict on a stored run once more, from its raw files alone."""

from __future__ import annotations

from itertools import islice

from common.errors import UsageError
from common.follows import disagreements, trials_from_raw
from common.stored_run import StoredRun
from common.verdict import Verdict, judge

_TOLD = 20


def rejudged(stored: StoredRun) -> Verdict:
    """The verdict; raises UsageError when the record says what the raw files do not."""
    trials = trials_from_raw(stored.folder, stored.stage)
    if found := list(islice(disagreements(stored.folder, stored.run, trials), _TOLD)):
        raise UsageError(f"{stored.name}: {found[0]}", details=found[1:])
    return judge(stored.run.model_copy(update={"trials": trials}), stored.stage)

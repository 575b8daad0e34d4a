# SPDX-License-Identifier: GPL-2.0-only
"""What the sweep of stage 1 makes fail; see sweep_workload."""

from __future__ import annotations

import errno

from common.checks.swept import SweptCall, SweptCalls

SWEPT_CALLS = SweptCalls(
    outgoing=(
        SweptCall(name="create_session"),
        SweptCall(name="preserve_fd"),
        SweptCall(name="preserve_second"),
        SweptCall(name="close_preserved"),
        SweptCall(name="preserve_kept", arrives=True),
    ),
    incoming=(
        SweptCall(name="retrieve_session"),
        # "Any error code returned by the handler's .retrieve() op" (luo_retrieve_file()): shmem's
        # word for an inode that cannot be had, as memfd_create() gives it too. And
        # include/uapi/linux/liveupdate.h: "If a retrieve of a token fails, subsequent attempts to
        # retrieve the token fail with the same error code."
        SweptCall(name="retrieve_fd", errnos=frozenset({errno.ENOSPC}), for_good=True),
        SweptCall(name="finish"),
        SweptCall(name="finish_unretrieved"),
        SweptCall(name="close_unfinished"),
    ),
)

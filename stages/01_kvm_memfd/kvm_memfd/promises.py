# SPDX-License-Identifier: GPL-2.0-only
"""Whose promise each of stage 1's checks is: stock Linux's, or this suite's."""

from __future__ import annotations

from common.checks.promise import LINUX, LIVE_UPDATE, SUITE, Promise

PROMISES: dict[str, Promise] = {
    **LIVE_UPDATE,
    "guest_ran_on": SUITE,
    "memfds_retrieved": LINUX,
    "ram_size": LINUX,
    "ram_equal": LINUX,
    "host_saw_ram": SUITE,
    "same_pages": LINUX,
    "host_saw_guest": SUITE,
    "host_saw_guest_run": SUITE,
    "registers": SUITE,
    "vector_state": SUITE,
    "counter": SUITE,
    "state_taken": SUITE,
    "guest_content": LINUX,
    "guest_ticks": SUITE,
    "guest_gap": SUITE,
    "guest_clock": LINUX,
    "outgoing_rules": LINUX,
    "incoming_rules": LINUX,
    "session_finished": LINUX,
    "files_content": LINUX,
    "files_size": LINUX,
    "files_position": LINUX,
    "files_sealed": LINUX,
    "files_flags": LINUX,
    "files_kept": LINUX,
    "files_same_pages": LINUX,
    "host_saw_files": SUITE,
    "preserved_once": LINUX,
    "abort_gives_back": LINUX,
    "refusal_takes_nothing": LINUX,
    "kill_gives_back": LINUX,
    "finish_gives_back": LINUX,
    "unretrieved_given_back": LINUX,
    "unfinished_given_back": LINUX,
    "failed_retrieve": LINUX,
    "all_restored": LINUX,
    "many_came": LINUX,
    "many_given_back": LINUX,
    "serialised_at_once": LINUX,
}

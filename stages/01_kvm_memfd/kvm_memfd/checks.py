# SPDX-License-Identifier: GPL-2.0-only
"""Stage 1's claims and the questions to the record that show them. Pure functions of a Trial."""

from __future__ import annotations

from common.checks import live_update as checks
from common.checks.live_update import INCOMING, OUTGOING, no_data, outcome, results_ok
from common.checks.model import Check, Claim, Outcome, Said
from common.guest import checks as guest_checks
from common.guest.evidence import RamEvidence
from common.guest.seen import HOST_SAW_GUEST_RUN
from common.record.evidence import Trial
from kvm_memfd import files as kvm_memfd_files
from kvm_memfd import many as kvm_memfd_many
from kvm_memfd import memory as kvm_memfd_memory


def host_saw(trial: Trial) -> Outcome:
    """The same bytes in the same page frames, read in QEMU's memory from outside."""
    pages, ram = _pages(trial), trial.seen(RamEvidence).ram
    before, after = ram.sha256.get("captured"), ram.sha256.get("retrieved")
    if pages is None or before is None or after is None:
        return no_data("ram-witness.json has not both digests", expected="equal digests")
    return outcome(
        before == after and ram.pages == pages,
        expected=f"SHA-256 {before[:16]}… of {pages} pages",
        seen=f"SHA-256 {after[:16]}… of {ram.pages} pages",
        evidence="ram-witness.json",
    )


def _host_saw_guest(trial: Trial) -> Outcome:
    """The guest went on in the very frames: all its pages written anew since, as only it does."""
    looks = trial.seen(RamEvidence).ram.guest
    before, after = looks.get("captured"), looks.get("watched")
    if not before or not after or len(before) != int(trial.setting.options["vcpus"]):
        return no_data("ram-witness.json has not both looks", expected="the guest at work")
    nonce = int(trial.setting.nonce, 16)
    gained = [b.counter - a.counter for a, b in zip(before, after, strict=False)]
    looked = [sum(vcpu.pages for vcpu in look) for look in (before, after)]
    right = [
        sum(vcpu.as_written for vcpu in look if vcpu.nonce == nonce) for look in (before, after)
    ]
    went_on = all(g >= vcpu.nr_pages for g, vcpu in zip(gained, before, strict=False))
    return outcome(
        len(before) == len(after) and went_on and looked == right and min(looked) > 0,
        expected=f"a whole sweep more, and {looked[0]} pages as the guest writes them, then"
        f" {looked[1]} as it writes them later",
        seen=f"{min(gained)} steps more; {right[0]} pages, then {right[1]}",
        evidence="ram-witness.json, looks into the outgoing kernel's page frames",
    )


def _pages(trial: Trial) -> int | None:
    side = trial.side(OUTGOING)
    return side.number("guest.pages") if side else None


def _ran_meanwhile(trial: Trial) -> Outcome:
    side = trial.side(OUTGOING)
    steps = [side.number(f"{what}.guest_steps") if side else None for what in ("preserve", "load")]
    if None in steps:
        return no_data("facts preserve.guest_steps, load.guest_steps", expected="more than 0")
    return outcome(
        all(number and number > 0 for number in steps),
        expected="the guest keeps stepping during both",
        seen=f"{steps[0]} steps while preserving, {steps[1]} while loading",
        evidence="facts preserve.guest_steps, load.guest_steps",
    )


# The errno of each stands beside its test in workload/rules.c.
OUTGOING_RULES = (
    "second_open_of_device",
    "session_name_in_use",
    "session_name_empty",
    "session_name_too_long",
    "retrieve_unknown_session",
    "retrieve_outgoing_session",
    "token_in_use",
    "file_preserved_twice",
    "file_in_two_sessions",
    "preserve_closed_fd",
    "preserve_pipe",
    "preserve_eventfd",
    "retrieve_fd_of_outgoing_session",
    "finish_outgoing_session",
    "write_inside_preserved_memfd",
    "write_past_end_of_preserved_memfd",
    "resize_preserved_memfd",
    "shrink_preserved_memfd",
    "empty_preserved_memfd",
    "content_of_preserved_memfd",
    "punch_preserved_memfd",
    "allocate_in_preserved_memfd",
    "resize_memfd_of_closed_session",
    "preserve_after_abort",
    "device_for_root_only",
    "create_to_read_only_memory",
    "create_after_fault",
    "session_name",
    "session_closes_on_exec",
    "preserve_linked_tmpfs_file",
    "preserve_device",
    "argument_too_small",
    "argument_of_the_future",
    "reserved_field",
    "unknown_ioctl",
    "argument_of_the_future_unused",
    "reboot_without_image",
    "session_name_after_reboot",
    "no_fd_left",
    "no_fd_left_by_ioctls",
    "preserve_one_more",
)
INCOMING_RULES = (
    "second_open_of_device",
    "retrieve_unknown_session",
    "retrieve_session_closed_before_kexec",
    "retrieve_session_twice",
    "retrieve_unknown_token",
    "preserve_in_incoming_session",
    "retrieve_token_twice_is_same_file",
    "preserve_retrieved_file",
    "finish_session",
    "finish_twice",
    "retrieve_fd_after_finish",
    "preserve_finished_file",
    "orphan_content",
    "orphan_content_after_close",
    "orphan_session_gone_after_close",
    "device_for_root_only",
    "retrieve_by_prefix",
    "session_name",
    "session_closes_on_exec",
    "retrieve_without_free_fd",
    "retrieve_to_read_only_memory",
    "retrieve_after_fault",
    "retrieved_by_its_owner",
    "finish_reserved_field",
    "finish_ioctl_session",
    "finish_files",
    "finish_many",
    "retrieve_by_two_at_once",
    "no_fd_left",
    "no_fd_left_by_ioctls",
    "no_memory_left_by_ioctls",
    *kvm_memfd_memory.INCOMING_RULES,
)

CLAIMS = (
    checks.LIVE_UPDATE,
    Claim(
        "memory preserved while the guest runs",
        "The guest's memory was preserved while it ran, and every byte of it is unchanged.",
        (
            Check(
                "guest_ran_on",
                "Did the guest run during preserve and load?",
                _ran_meanwhile,
                timed=True,
            ),
            guest_checks.RETRIEVED,
            Check("ram_size", "Is the memfd the same size as before?", guest_checks.ram_size),
            Check("ram_huge", "Are its large pages counted as such again?", guest_checks.ram_huge),
            Check("ram_equal", "Is every page identical?", guest_checks.ram_equal),
            Check("host_saw_ram", "Did the host see the same bytes from outside?", host_saw),
        ),
        (
            Said(
                r"every (?:byte|page) of (?:it|the memfd) is (?:equal|the same|preserved)",
                ("ram_equal",),
            ),
        ),
    ),
    Claim(
        "same physical pages, no copy",
        "They are the same physical pages: nothing was copied.",
        (
            Check("same_pages", "Are all page frame numbers unchanged?", guest_checks.same_pages),
            Check(
                "host_saw_guest",
                "Did the host see, from outside, the guest at work in them?",
                _host_saw_guest,
            ),
        ),
        (Said(r"same physical pages"), Said(r"none of [0-9,]+ pages had moved", ("same_pages",))),
    ),
    Claim(
        "vCPUs: registers, vectors, counter",
        "The vCPUs resume where they were paused: registers, vector state, counter.",
        (
            HOST_SAW_GUEST_RUN,
            guest_checks.REGISTERS,
            guest_checks.VECTOR_STATE,
            guest_checks.COUNTER,
            guest_checks.STATE_TAKEN,
        ),
    ),
    Claim(
        "the guest finds no fault in its RAM",
        "The guest, which verifies all of its memory, noticed nothing but the passage of time.",
        (
            Check(
                "guest_content",
                "Did the guest find no errors?",
                guest_checks.each_vcpu(guest_checks.guest_content),
            ),
            guest_checks.GUEST_TICKS,
            guest_checks.GUEST_GAP,
            guest_checks.GUEST_NEVER_STILL,
            guest_checks.GUEST_CLOCK,
        ),
    ),
    Claim(
        "LUO's errno for each misuse",
        "Sessions behave as LUO's source says, including when they are misused.",
        (
            Check(
                "outgoing_rules",
                "Does each misuse return the right errno?",
                results_ok(OUTGOING, OUTGOING_RULES),
            ),
            Check(
                "incoming_rules",
                "Does each misuse return the right errno?",
                results_ok(INCOMING, INCOMING_RULES),
            ),
            checks.FINISHED,
        ),
    ),
    kvm_memfd_files.CLAIM,
    kvm_memfd_memory.CLAIM,
    kvm_memfd_many.CLAIM,
)

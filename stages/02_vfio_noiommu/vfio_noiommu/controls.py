# SPDX-License-Identifier: GPL-2.0-only
"""Stage 2's controls: runs that must fail, each for the intended reason."""

from __future__ import annotations

from common.checks import live_update as checks
from common.checks.controls import panicked, reason, was_reset
from common.checks.live_update import INCOMING, OUTGOING, fact_is, facts_are
from common.checks.model import Check, Control
from common.dma import checks as frame_checks
from common.dma.controls import (
    CONFIG_UNTOUCHED,
    NO_INTERRUPT,
    aborts_were_silent,
    master_cleared_at_kexec,
    master_cleared_later,
    silent_from_jump,
)
from vfio_noiommu.checks import CLAIMS, RACES_CONTROL
from vfio_noiommu.reasons import (
    after_close,
    command_written,
    into_freed_pages,
    left_unfinished,
    other_goes_on,
    other_stopped,
    pages_moved,
    port_lost_its_driver,
    port_unbound,
    reset_by_hand,
    ring_ran_empty,
    was_missing,
    went_to_sleep,
)

LIVE = frozenset(check.name for check in CLAIMS[0].checks)
ALL = frozenset(check.name for claim in CLAIMS for check in claim.checks)
# The guest itself is none the worse for a device that has stopped.
GUEST = frozenset(
    {
        "memfds_retrieved",
        "ram_size",
        "ram_equal",
        "registers",
        "vector_state",
        "counter",
        "guest_content",
        "guest_ticks",
        "guest_gap",
        "guest_never_still",
        "guest_clock",
        "state_taken",
        "iommufd_agrees",
    }
)
BEFORE = frozenset({"preserved_meanwhile", "outgoing_rules", "aborts_unnoticed"})
# Of controls in which BARs come and go while the guest runs: QEMU can keep one of its CPUs waiting
# then, for seconds, and nobody can tell (docs/oddities.md, "A lost register write").
KEPT_WAITING = frozenset(
    {"guest_clock", "guest_gap", "guest_never_still", "guest_ticks", "guest_saw_all"}
)
# The workload ends in the outgoing kernel.
STOPPED = frozenset(
    {
        "both_sides_ended_well",
        "memfds_retrieved",
        "dma_in_gap",
        "same_pages",
        "ring_went_round",
    }
)
WITHOUT_DMA = ALL - LIVE - GUEST - BEFORE
WITHOUT_DEVICE = WITHOUT_DMA | {"dialogue_complete", "not_tainted", "same_pages"}


def _taker_killed(last: str, *, before: str) -> Control:
    """The second device's taker dies after `last`; a step of workload/taken_over.c."""
    return Control(
        name=f"taker-killed-{last}",
        what="the second device is preserved in a session of its own, and the process that takes"
        f" it over is killed {before}: the device is stopped, and whoever comes next can use it",
        breaks=frozenset({"other_silent"}),
        # Neither a reset nor a frame kept back says in QEMU's trace which device it was.
        # The device of whoever came next is still in use at the end.
        may_break=frozenset({"no_device_reset", "never_gated", "unpinned"}),
        reason=reason(
            facts_are(
                INCOMING,
                {
                    "taker.signal": "9",
                    "taker.open": "0",
                    "taker.bind": "0",
                    "taker.reset": "0",
                    "taker.frames": "yes",
                },
            )
        ),
        holds=(
            Check("taker_stopped", "Is the device stopped when its taker is dead?", other_stopped),
        ),
    )


def _skew(
    name: str,
    what: str,
    *words: str,
    with_patch: str | None = None,
    with_config: str | None = None,
) -> Control:
    """An incoming kernel that does not know what is handed over: it stops, and says what."""
    return Control(
        name=f"skew-{name}",
        what=f"an incoming kernel {what}, with both devices preserved: it refuses to boot",
        incoming_only=True,
        breaks=frozenset({"no_splat", "both_sides_ended_well", "device_retrieved"}),
        may_break=None,
        reason=reason(panicked("liveupdate", *words)),
        holds=(CONFIG_UNTOUCHED, checks.ONE_QEMU),
        with_patch=with_patch,
        with_config=with_config,
    )


CONTROLS = (
    Control(
        name="bus-mastering-patch-off",
        what="a kernel without the patch that keeps bus mastering on at kexec",
        without_patch="PCI-keep-bus-mastering-on-for-preserved",
        breaks=frozenset(
            {
                "dma_in_gap",
                "no_silence",
                "never_held_up",
                "host_saw_all",
                "bus_mastering_kept",
                "head_went_on",
                "same_config",
            }
        ),
        may_break=WITHOUT_DMA,
        reason=master_cleared_at_kexec(),
        holds=(Check("silent", "Did nothing land in the gap?", silent_from_jump),),
    ),
    Control(
        name="adopt-patch-off",
        what="an incoming kernel without the patch that takes over a running device",
        without_patch="vfio-pci-take-over-a-running-device",
        incoming_only=True,
        breaks=frozenset({"bus_mastering_kept", "host_saw_all", "incoming_rules"}),
        may_break=WITHOUT_DEVICE,
        reason=master_cleared_later(for_good=True),
    ),
    Control(
        name="silenced",
        what="the incoming kernel silences the device for 150 ms, then releases it",
        with_patch="faults/silenced.patch",
        incoming_only=True,
        breaks=frozenset({"dma_in_gap", "no_silence", "never_held_up", "bus_mastering_kept"}),
        may_break=frozenset({"never_gated"}),
        reason=master_cleared_later(),
        holds=(Check("went_on", "Were no frames lost?", frame_checks.HOST_SAW_ALL.ask),),
    ),
    Control(
        name="bridge-mastering-lost",
        what="a kernel in which the bridges above a preserved device lose bus mastering at kexec",
        with_patch="faults/bridge-mastering-lost.patch",
        breaks=frozenset({"bus_mastering_kept"}),
        # What a bridge's driver does to it in the incoming kernel is another thing.
        may_break=frozenset({"same_config"}),
        reason=master_cleared_at_kexec("bridge"),
    ),
    Control(
        name="command-write-allowed",
        what="a kernel that allows writes to PCI_COMMAND of a device in a live update",
        with_patch="faults/command-write-allowed.patch",
        breaks=frozenset({"outgoing_rules", "incoming_rules"}),
        reason=reason(command_written),
    ),
    Control(
        name="d0-patch-off",
        what="an incoming kernel without the patch that keeps incoming devices in D0",
        without_patch=("vfio-pci-keep-incoming-devices-in-D0", "vfio-pci-Let-a-device-that-was"),
        incoming_only=True,
        breaks=frozenset({"stayed_in_d0"}),
        may_break=WITHOUT_DEVICE,
        reason=reason(went_to_sleep, timed=True),
    ),
    Control(
        name="pin-patch-off",
        what="an incoming kernel without the patch that pins a retrieved memfd, while memory is"
        " compacted",
        without_patch="mm-memfd_luo-keep-restored-folios-pinned-until",
        incoming_only=True,
        breaks=frozenset({"same_pages", "pinned_until_finish"}),
        # The host sends nothing from before the pages move on: what the device writes after that
        # would go anywhere, and anything could come of it.
        may_break=WITHOUT_DEVICE | GUEST,
        reason=reason(pages_moved),
    ),
    Control(
        name="stock-kernel",
        what="a kernel without any patch, which cannot preserve a device: the PCI core clears bus"
        " mastering at kexec",
        stock=True,
        breaks=frozenset(
            {"dma_in_gap", "no_silence", "never_held_up", "bus_mastering_kept", "device_retrieved"}
        ),
        may_break=WITHOUT_DEVICE | BEFORE,
        reason=master_cleared_at_kexec(),
        holds=(
            Check(
                "no_handler", "Does it lack a handler?", fact_is(OUTGOING, "preserve.device", "-2")
            ),
        ),
    ),
    Control(
        name="device-not-preserved",
        what="the device is not added to the session",
        breaks=frozenset(
            {"dma_in_gap", "no_silence", "never_held_up", "bus_mastering_kept", "device_retrieved"}
        ),
        # Of its neighbour's abort nothing can be asked where it is not preserved itself.
        may_break=WITHOUT_DEVICE | {"aborts_unnoticed"},
        reason=reason(fact_is(INCOMING, "retrieve.device", "-2")),
    ),
    Control(
        name="memfd-not-preserved",
        what="the memory is not added to the session: preserving the device is refused",
        breaks=STOPPED | {"iommufd_agrees"},
        may_break=None,
        reason=reason(fact_is(OUTGOING, "preserve.device", "-2")),
        holds=(checks.ONE_QEMU,),
    ),
    Control(
        name="others-refused",
        what="preserving a VF, its PF, a conventional PCI device and a group's file is"
        " tried as well: each is refused, and the run ends there",
        breaks=STOPPED,
        may_break=None,
        reason=reason(
            facts_are(
                OUTGOING,
                {
                    "preserve.device": "0",
                    "preserve.pf_with_vfs": "-95",
                    "preserve.vf": "-95",
                    "preserve.file_of_group": "-2",
                    "preserve.conventional_pci": "-95",
                    "preserve.others.frames": "yes",
                },
            )
        ),
        holds=(checks.ONE_QEMU,),
    ),
    Control(
        name="reboot-refused",
        what="a reboot to an image without KHO data, and one with the second device suspended:"
        " both are refused, the device keeps running, and the run ends there",
        breaks=STOPPED,
        may_break=None,
        reason=reason(
            facts_are(
                OUTGOING,
                {
                    "reboot.without_kho": "-22",
                    "reboot.other_asleep": "-5",
                    "reboot.then_reset": "-16",
                    "reboot.frames": "yes",
                },
            )
        ),
        holds=(checks.ONE_QEMU,),
    ),
    Control(
        name="device-reset",
        what="the device is reset through its own register after takeover",
        breaks=frozenset(
            {
                "no_device_reset",
                "same_registers",
                "device_counted_all",
                "guest_saw_all",
                "dma_after",
            }
        ),
        may_break=WITHOUT_DEVICE,
        reason=reason(reset_by_hand, timed=True),
    ),
    Control(
        name="byte-flipped",
        what="one byte of the guest's own memory is flipped before the comparison",
        breaks=frozenset({"ram_equal", "guest_content"}),
        reason=reason(fact_is(INCOMING, "ram.pages_different", "1")),
    ),
    Control(
        name="tail-left",
        what="nobody advances the ring's tail in the incoming kernel",
        breaks=frozenset({"ring_went_round"}),
        may_break=frozenset(
            {
                "host_saw_all",
                "device_counted_all",
                "guest_saw_all",
                "never_gated",
                "never_held_up",
                "dma_after",
            }
        ),
        reason=reason(ring_ran_empty),
    ),
    Control(
        name="receiver-off",
        what="the device's receiver is off during aborts, preserve and load",
        breaks=frozenset(
            {"preserved_meanwhile", "aborts_unnoticed", "never_gated", "never_held_up"}
        ),
        may_break=WITHOUT_DMA,
        reason=reason(aborts_were_silent),
    ),
    Control(
        name="other-preserved",
        what="the second device is preserved too",
        breaks=frozenset({"other_silent"}),
        # Nobody retrieves it, so FINISH resets it; the trace does not say which device it was.
        may_break=frozenset({"no_device_reset"}),
        reason=reason(other_goes_on),
        holds=(
            Check(
                "other_stopped",
                "Does FINISH stop the device that nobody retrieved?",
                other_stopped,
            ),
        ),
    ),
    Control(
        name="liveupdate-off",
        what="the incoming kernel is told to ignore what was preserved, and refuses to boot",
        cmdline=lambda words: (*words, "stage.incoming=liveupdate=off"),
        breaks=frozenset({"no_splat", "both_sides_ended_well", "device_retrieved"}),
        may_break=None,
        reason=reason(panicked("Sessions arrived")),
        holds=(checks.ONE_QEMU,),
    ),
    _skew(
        "pci-list",
        "whose list of preserved PCI devices has another format",
        "'pci-live-v1'",
        with_patch="faults/another-pci-list.patch",
    ),
    _skew(
        "pci-list-off",
        "without PCI_LIVEUPDATE",
        "'pci-live-v1'",
        with_config="faults/no-pci-list.config",
    ),
    _skew(
        "vfio-file",
        "whose preserved vfio-pci files have another format",
        "'vfio-pci-live-v1'",
        with_patch="faults/another-vfio-file.patch",
    ),
    _skew(
        "memfd",
        "whose preserved memfds have another format",
        "'memfd-v3'",
        with_patch="faults/another-memfd.patch",
    ),
    _skew(
        "pci-list-corrupted",
        "that finds two bits of the list of preserved PCI devices changed",
        "'pci-live-v1'",
        with_patch="faults/list-corrupted.patch",
    ),
    _skew(
        "vfio-file-corrupted",
        "that finds a bit of the state of a vfio-pci file changed",
        "'vfio-pci-live-v1'",
        with_patch="faults/file-corrupted.patch",
    ),
    Control(
        name="skew-fails-open",
        what="an incoming kernel that does not refuse unknown data, with another name for"
        " the list of preserved PCI devices: the memory of a running device is freed",
        with_patch="faults/unknown-list-accepted.patch",
        incoming_only=True,
        breaks=frozenset({"device_retrieved", "other_silent"}),
        may_break=None,
        reason=reason(into_freed_pages),
        holds=(checks.ONE_QEMU,),
    ),
    Control(
        name="skew-list-unchecked",
        what="kernels without the patch that checks the list of preserved PCI devices, two"
        " bits of which change: the device is forgotten, and keeps writing",
        without_patch=(
            "PCI-Check-the-list-of-preserved-devices",
            "PCI-Preserve-no-device-while-the-driver",
        ),
        with_patch="faults/list-corrupted.patch",
        breaks=frozenset({"device_retrieved"}),
        may_break=None,
        reason=reason(facts_are(INCOMING, {"retrieve.device": "-19", "finish": "0"})),
        holds=(checks.ONE_QEMU,),
    ),
    Control(
        name="unfinished-allowed",
        what="an incoming kernel that does not refuse a kexec while sessions are unfinished: it"
        " starts something that is not a kernel, and everything is lost",
        with_patch="faults/unfinished-allowed.patch",
        incoming_only=True,
        breaks=frozenset({"both_sides_ended_well", "incoming_rules", "session_finished"}),
        may_break=None,
        reason=reason(left_unfinished),
    ),
    Control(
        name="retrieve-tried-once",
        what="an incoming kernel in which a retrieve that failed for lack of a privilege"
        " cannot be repeated",
        with_patch="faults/retrieve-tried-once.patch",
        incoming_only=True,
        breaks=frozenset({"device_retrieved", "ring_went_round", "incoming_rules"}),
        may_break=WITHOUT_DEVICE,
        reason=reason(fact_is(INCOMING, "retrieve.device", "-1")),
    ),
    Control(
        name="areas-patch-off",
        what="an incoming kernel without the patch that compares memory, not areas: one"
        " area mapped in two halves can never be finished",
        without_patch="iommufd-Compare-memory-not-areas-when-a",
        incoming_only=True,
        breaks=frozenset({"session_finished", "unpinned", "pinned_until_finish"}),
        # No longer refused is what an open session refuses; and it lets go of no device.
        may_break=frozenset({"incoming_rules", "let_go", "interrupts_arrive", "idle_when_closed"}),
        reason=reason(fact_is(INCOMING, "finish", "-16")),
    ),
    NO_INTERRUPT,
    Control(
        name="sleep-patch-off",
        what="an incoming kernel without the patch that lets a device sleep again when the live"
        " update is over",
        without_patch="vfio-pci-Let-a-device-that-was",
        incoming_only=True,
        breaks=frozenset({"idle_when_closed"}),
        reason=reason(fact_is(INCOMING, "device.let_go", "enabled 0, active, for vfio-pci")),
    ),
    Control(
        name=RACES_CONTROL,
        what="a kernel without the patch that keeps the drivers of bridges while a device is being"
        " preserved: one is gone after it was",
        without_patch="PCI-Preserve-no-device-while-the-driver",
        breaks=frozenset({"nothing_taken_away"}),
        reason=reason(port_lost_its_driver),
    ),
    Control(
        name="unbind-patch-off",
        what="a kernel without the patch that refuses to unbind drivers of preserved"
        " devices: unbinding the port cuts the path, unbinding the device waits"
        " forever, and the reboot is refused",
        without_patch="PCI-Do-not-unbind-the-drivers-of",
        breaks=STOPPED | {"outgoing_rules"},
        may_break=None,
        reason=reason(
            facts_are(
                OUTGOING,
                {
                    "reboot.unbind": "-110",
                    "reboot.while_unbinding": "-16",
                    "reboot.frames": "yes",
                },
            )
        ),
        holds=(
            Check("port_unbound", "Was the port's driver unbound?", port_unbound),
            checks.ONE_QEMU,
        ),
    ),
    Control(
        name="found-again",
        what="the second device is preserved in a session of its own, and the first one,"
        " finished, is removed and rediscovered: it is an ordinary device",
        breaks=frozenset({"other_silent"}),
        # The second one's session is not finished.
        may_break=frozenset({"no_device_reset", "unpinned"}) | KEPT_WAITING,
        reason=reason(facts_are(INCOMING, {"found.reset": "0", "found.remove": "0"})),
    ),
    Control(
        name="forget-patch-off",
        what="an incoming kernel without the patch that forgets a device when its live"
        " update is over: once rediscovered it counts as preserved, until the next"
        " reboot",
        without_patch="PCI-Forget-a-preserved-device-when-its",
        incoming_only=True,
        breaks=frozenset({"other_silent"}),
        may_break=frozenset({"no_device_reset", "unpinned"}) | KEPT_WAITING,
        reason=reason(facts_are(INCOMING, {"found.reset": "-16", "found.remove": "-16"})),
    ),
    Control(
        name="device-missing",
        what="the incoming kernel finds no PCI device at all",
        cmdline=lambda words: (*words, "stage.incoming=pci=off"),
        breaks=frozenset(
            {"device_retrieved", "same_place", "file_rules", "incoming_rules", "ring_went_round"}
        ),
        may_break=WITHOUT_DEVICE,
        reason=reason(was_missing),
    ),
    Control(
        name="session-left",
        what="the session is closed with a device that is not taken over: it is stopped",
        breaks=frozenset({"session_finished", "incoming_rules", "ring_went_round", "let_go"}),
        may_break=WITHOUT_DEVICE,
        reason=reason(fact_is(INCOMING, "finish", "-9")),
        holds=(after_close(runs=False),),
    ),
    Control(
        name="discard-patch-off",
        what="the same with an incoming kernel without the patch that stops such a device: it"
        " keeps running, and nobody can stop it",
        without_patch="vfio-pci-Stop-a-device-whose-session",
        incoming_only=True,
        breaks=frozenset({"session_finished", "incoming_rules", "ring_went_round", "let_go"}),
        may_break=WITHOUT_DEVICE,
        reason=reason(fact_is(INCOMING, "finish", "-9")),
        holds=(after_close(runs=True),),
    ),
    _taker_killed("device", before="before it has bound the device to an iommufd"),
    _taker_killed("map", before="before it has attached the device to its memory"),
    _taker_killed("attach", before="with everything done but FINISH"),
    Control(
        name="disable-patch-off",
        what="an incoming kernel without the patch that disables no preserved device, whose port"
        " driver gives up on the ports above it",
        without_patch="PCI-Do-not-disable-devices-that-are",
        with_patch="faults/port-driver-gives-up.patch",
        incoming_only=True,
        breaks=frozenset({"bus_mastering_kept", "same_config", "incoming_rules"}),
        may_break=WITHOUT_DEVICE | KEPT_WAITING,
        reason=master_cleared_later("bridge"),
    ),
    Control(
        name="fixups-patch-off",
        what="kernels whose fixups write to the device's command register and reset it, without the"
        " patch that keeps fixups from a preserved device",
        without_patch="PCI-Let-no-fixup-touch-a-device",
        with_patch="faults/hostile-fixups.patch",
        breaks=frozenset({"bus_mastering_kept", "no_device_reset", "same_registers"}),
        may_break=WITHOUT_DEVICE | KEPT_WAITING,
        reason=master_cleared_later(),
    ),
    Control(
        name="class-patch-off",
        what="kernels in which a fixup changes the device's class, without the patch that hands"
        " over the class as the device has it",
        without_patch="PCI-Hand-over-the-class-of-a",
        with_patch="faults/hostile-fixups.patch",
        breaks=frozenset({"bus_mastering_kept", "device_retrieved"}),
        may_break=WITHOUT_DEVICE | KEPT_WAITING,
        reason=reason(fact_is(INCOMING, "retrieve.device", "-19")),
    ),
    Control(
        name="firmware-reboot",
        what="a reboot through the firmware instead of the kexec",
        breaks=(LIVE - {"no_splat", "one_qemu"})
        | {"no_silence", "never_held_up", "no_device_reset"},
        may_break=None,
        reason=reason(was_reset),
        holds=(checks.ONE_QEMU,),
    ),
)

# SPDX-License-Identifier: GPL-2.0-only
"""The host's part in stage 3 with QEMU: frames, samples of the IOMMU's tables, the guest.

It sends and watches as for stage 3's own program, and talks to the guest over TCP. Beside that it
tells QEMU what to do at each rendezvous, over QMP: to become the workload's program by cpr-exec, or
to load and go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from qemu.qmp import QMPError

from common.checks.live_update import INCOMING
from common.dma.igb import sender_port, udp_ports
from common.guest.evidence import Beat
from common.guest.monitors import QMP_SECONDS, Monitors
from common.guest.qemu import Failed, OurGuest
from common.guest.talk import PeerProcess
from common.machine.helper import HostHelper, MachineView
from common.record.dialogue import awaited
from iommufd.witness import TranslationWitness

HELPER = "/init"
"""What QEMU becomes: the workload's own program (qemu_workload/take.h)."""
_WARM_UP_FRAMES, _WARM_UP_ANSWERS = 200, 10
# Less than the workload waits (qemu_workload/qemu_nic.c).
_QMP_SECONDS_PER_GIB = 100.0
_SECONDS = 110.0
# A whole ring is read in a second or two; where no interrupt comes, never.
_COUNTED_SECONDS, _NEVER_SECONDS = 40.0, 4.0
# In two controls the guest never reads them, or not before another one comes.
_GAP_SECONDS, _STILL_BEATS = 6.0, 4
_STOPPED_SECONDS = 2.0
# What is under way when a guest is stopped goes on when it is resumed: in this control nothing is.
_IDLE, _IDLE_SECONDS = "not-injected", 0.5
# Without these there is no guest.
_NEEDED = ("qmp", "guest", "received", "save", "resume")


class NicHost(TranslationWitness):
    """Sender, watcher, looks at tables, both QEMUs' monitors, and the guest's own line."""

    unread_from, unread_to = "# await save", "# at gap-read"
    from_then_on = "go"

    def __init__(self, machine: MachineView) -> None:
        super().__init__(machine)
        gib = int(self._parameter("guest_memory", "0")) / 1024
        # QEMU pins the guest's RAM for the NIC before it listens to its monitor.
        self._qemus = Monitors(machine, seconds=QMP_SECONDS + _QMP_SECONDS_PER_GIB * gib)
        self._guest = OurGuest(
            machine,
            control=self._control,
            gib=gib,
            rounds=True,
            seconds=_SECONDS,
        )
        self._frames_at_save = 0
        self._peer: PeerProcess | None = None
        self._uri, self._lost = "", ""
        self._due: Mapping[str, Callable[[], None]] = {
            "qmp": self._qemus.connect,
            "guest": self._guest.come_up,
            "received": self._received,
            "loaded": self._guest.run_on,
            "save": self._save,
            "snapshot-outgoing": self._send_again,
            "snapshot-adopted": self._hold,
            "resume": self._resume,
            "gap-read": self._gap_read,
            "swept": self._swept,
            "counted": self._counted,
        }

    def on_line(self, text: str) -> None:
        """Take a line of the dialogue; at a rendezvous, do what is due before it is answered."""
        if text == "# await silence":
            self._end_peer()
        super().on_line(text)
        if text == "# await traffic":
            self._start_peer()
        elif text == "# at gap-read" and self._peer:
            self._peer.tell("go")
        elif text == "# side=incoming":
            self._qemus.side = INCOMING
        elif text.startswith("# qemu.uri="):
            self._uri = text.partition("=")[2]
        elif (name := awaited(text)) and name in self._due:
            try:
                if self._lost:
                    raise Failed(f"not after {self._lost!r} has failed")
                self._due[name]()
            except (Failed, QMPError, TimeoutError, OSError) as error:
                if name in _NEEDED:
                    self._lost = self._lost or name
                self._qemus.write(failed=name, why=str(error) or type(error).__name__)

    def watcher_options(self) -> list[object]:
        """Buffers are where the guest's driver puts them, and it may put them elsewhere."""
        return [*super().watcher_options(), "--driver"]

    def _start_peer(self) -> None:
        devices = self.machine.spec.devices
        self._peer = PeerProcess(
            self.machine.folder,
            nonce=self._parameter("nonce"),
            port=sender_port(devices),
            device_port=udp_ports(devices)[0],
        )

    def _end_peer(self) -> None:
        if self._peer:
            self._peer.close()
            self._peer = None

    def close(self) -> None:
        """Everything heard until now is on disk."""
        self._end_peer()
        self.stop()
        self._guest.close()
        self._qemus.close()

    @property
    def _control(self) -> str:
        return self._parameter("control")

    def _swept(self) -> None:
        self._guest.run_on()
        self._guest.corrupt()
        if self._control == "stopped-again":
            self._qemus.now.do("stop")
            time.sleep(_STOPPED_SECONDS)
            self._qemus.now.do("cont")
        self._guest.work()

    def _received(self) -> None:
        self._guest.wait(
            lambda beat: (
                beat.number("nic.frames") >= _WARM_UP_FRAMES
                and beat.number("talker.blocks") >= _WARM_UP_ANSWERS
            ),
            what=f"receive {_WARM_UP_FRAMES} frames and answer {_WARM_UP_ANSWERS} questions",
        )
        if self._control == "paused-early":
            self._qemus.now.do("stop")

    def _hold(self) -> None:
        """What fell into the gap has to reach the guest though no frame follows."""
        if self._peer:
            self._peer.tell("hold")
        if self._running:
            self._tell(self._running[-1], "hold")

    def _send_again(self) -> None:
        if self._control == _IDLE and self._running:
            self._tell(self._running[-1], "go")

    def _gap_read(self) -> None:
        """The guest has read frames of the gap, and for some beats no more: there are no more."""
        beats = [self._frames_at_save]

        def all_read(beat: Beat) -> bool:
            beats.append(beat.number("nic.frames"))
            return beats[-1] > beats[0] and len(set(beats[-_STILL_BEATS:])) == 1

        self._guest.wait(
            all_read, what="read what arrived while it was paused", seconds=_GAP_SECONDS
        )

    def _save(self) -> None:
        if self._control == _IDLE:
            self._hold()
            time.sleep(_IDLE_SECONDS)
        if beat := self._guest.last:
            self._frames_at_save = beat.number("nic.frames")
        self._tell_of_migration()
        parameters = {"mode": "cpr-exec", "cpr-exec-command": [HELPER]}
        self._qemus.now.do("migrate-set-parameters", **parameters)
        self._qemus.now.do("migrate", uri=self._uri)
        self._qemus.now.wait_migration()

    def _tell_of_migration(self) -> None:
        events = [{"capability": "events", "state": True}]
        self._qemus.now.do("migrate-set-capabilities", capabilities=events)

    def _resume(self) -> None:
        self._tell_of_migration()
        self._qemus.now.do("migrate-incoming", uri=self._uri, **{"exit-on-error": False})
        self._qemus.now.wait_migration()
        self._qemus.now.do("cont")
        self._qemus.now.wait_event("RESUME")
        self._qemus.now.do("query-status")

    def _counted(self) -> None:
        """All that was sent has come, and the device's own count has been told since."""
        sent = (self.machine.folder / "device-sent.bin").stat().st_size // 8
        self._guest.wait(
            lambda beat: beat.number("nic.next") >= sent and "nic.counted" in beat.values,
            what=f"receive all {sent} frames",
            seconds=_NEVER_SECONDS if self._control == "interrupts-left" else _COUNTED_SECONDS,
        )
        self._qemus.now.take_events()
        self._qemus.now.do("query-status")


@contextmanager
def nic_host(machine: MachineView) -> Iterator[HostHelper]:
    """The helper of stage 3 with QEMU."""
    host = NicHost(machine)
    try:
        yield host
    finally:
        host.close()

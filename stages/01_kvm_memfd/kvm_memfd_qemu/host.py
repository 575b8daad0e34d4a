# SPDX-License-Identifier: GPL-2.0-only
"""The host's part in stage 1 with QEMU: it drives QEMU over QMP, and reads the guest's lines.

QEMU's monitor and the guest's console are virtio ports of the machine, sockets here. At each
rendezvous of the workload the host does what is due: it has QEMU save, or load and continue,
and it waits for the guest to have gone round its memory. All of it is written down:

    guest.jsonl      [host ns, text] for each line of the guest (.log: raw bytes)
    guest-qmp.jsonl  each command, answer and event of either QEMU, with host ns and side
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from qemu.qmp import QMPError

from common.checks.live_update import INCOMING
from common.guest.lines import GUEST
from common.guest.monitors import QMP_SECONDS, Monitors
from common.guest.qemu import Failed, Guest, OurGuest
from common.machine.helper import HostHelper, MachineView
from common.machine.ram import MachineRam
from common.record.dialogue import awaited
from kvm_memfd.witness import RamWitness
from kvm_memfd_qemu.guest import UnknownGuest

# Where QEMU is to save RAM too; "disk" is a way to cross of bench/ways_to_cross.py.
WITH_RAM = ("ram-in-stream", "disk")
_UNLIMITED = {"max-bandwidth": 1 << 40}

# QEMU that was killed says nothing more.
_SAVE_SECONDS = 10.0
# Without these there is no guest; and where the host waits for one.
_NEEDED = ("qmp", "guest", "save", "resume")
_WITH_GUEST = ("goes-on", "swept", "swept-again")


class QemuHost:
    """The helper: what is due at each rendezvous."""

    def __init__(self, machine: MachineView, ram: RamWitness) -> None:
        self._qemus = Monitors(machine)
        self._ram = ram
        parameters = _parameters(machine.spec.cmdline)
        self._control = parameters.get("control", "")
        self._guest = self._guest_of(machine, parameters)
        self._lost = ""
        self._uri = ""
        self._due: Mapping[str, Callable[[], None]] = {
            "qmp": self._qemus.connect,
            "guest": self._guest_is_up,
            "preserved": self._guest.run_on,
            "save": self._save,
            "goes-on": self._goes_on,
            "resume": self._resume,
            "swept": self._guest.work_after_resume,
            "swept-again": self._last_look,
        }

    def on_line(self, text: str) -> None:
        """Take a line of the dialogue; at a rendezvous, do what is due before it is answered."""
        self._ram.on_line(text)
        if text in ("# side=incoming", "# at in-place"):
            self._qemus.side = INCOMING
        elif text.startswith("# qemu.uri="):
            self._uri = text.partition("=")[2]
        elif (name := awaited(text)) and name in self._due:
            try:
                if name in _WITH_GUEST and self._lost:
                    raise Failed(f"not after {self._lost!r} has failed")
                self._due[name]()
            except (Failed, QMPError, TimeoutError, OSError) as error:
                if name in _NEEDED:
                    self._lost = name
                self._qemus.write(failed=name, why=str(error) or type(error).__name__)

    def _guest_of(self, machine: MachineView, parameters: Mapping[str, str]) -> Guest:
        if parameters.get("guest_image") == "1":
            line, folder = machine.ports[GUEST], machine.folder
            return UnknownGuest(line, folder, ram=self._ram, write=self._qemus.write)
        return OurGuest(
            machine,
            control=self._control,
            gib=int(parameters.get("guest_memory", "0")) / 1024,
            # bench/ways_to_cross.py measures what a round of 4 GiB would take many times as long as
            rounds=parameters.get("proof", "1") != "0",
        )

    def close(self) -> None:
        """The lines are closed; everything heard until now is on disk."""
        self._guest.close()
        self._qemus.close()

    def _guest_is_up(self) -> None:
        self._guest.come_up()
        if self._control == "paused-early":
            self._qemus.now.do("stop")

    def _prepare_migration(self) -> None:
        states = {"events": True, "x-ignore-shared": self._control not in WITH_RAM}
        wanted = [{"capability": name, "state": state} for name, state in states.items()]
        self._qemus.now.do("migrate-set-capabilities", capabilities=wanted)
        self._qemus.now.do("migrate-set-parameters", mode="cpr-reboot", **_UNLIMITED)

    def _save(self) -> None:
        self._prepare_migration()
        self._qemus.now.do("migrate", uri=self._uri)
        self._qemus.now.wait_migration(
            seconds=self._guest.patience if self._control in WITH_RAM else _SAVE_SECONDS
        )
        self._qemus.now.do("query-status")

    def _goes_on(self) -> None:
        self._qemus.now.do("cont")
        self._guest.work()

    def _resume(self) -> None:
        if self._control != "cold-guest":
            self._prepare_migration()
            self._qemus.now.do("migrate-incoming", uri=self._uri, **{"exit-on-error": False})
            self._qemus.now.wait_migration(
                seconds=self._guest.patience if self._control in WITH_RAM else QMP_SECONDS
            )
        self._qemus.now.do("cont")
        self._qemus.now.wait_event("RESUME")
        self._qemus.now.do("query-status")

    def _last_look(self) -> None:
        self._guest.work()
        if self._control == "guest-reset":
            self._qemus.now.do("system_reset")
        self._qemus.now.take_events()
        self._qemus.now.do("query-status")


def _parameters(cmdline: str) -> dict[str, str]:
    """The workload's parameters: stage.NAME=VALUE."""
    words = (word.partition("=") for word in cmdline.split() if word.startswith("stage."))
    return {key.removeprefix("stage."): value for key, _, value in words}


@contextmanager
def qemu_host(machine: MachineView) -> Iterator[HostHelper]:
    """The helper of the workload; leaves its files in the trial's folder."""
    with MachineRam(machine.process.pid) as memory, ThreadPoolExecutor(1) as pool:
        ram = RamWitness(memory, pool)
        host = QemuHost(machine, ram)
        try:
            yield host
        finally:
            host.close()
        ram.store(machine.folder)

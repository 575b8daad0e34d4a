# SPDX-License-Identifier: GPL-2.0-only
"""The host's part in stage 1 with QEMU: it tells QEMU what to do, and hears the guest.

QEMU's monitor and the guest's console are virtio ports of the machine, sockets here. At each
rendezvous of the workload the host does what is due: it has QEMU save, or load and continue,
and it waits for the guest to have gone round its memory. All of it is written down:

    guest.jsonl      [host ns, text] for each line of the guest (.log: raw bytes)
    guest-qmp.jsonl  each command, answer and event of either QEMU, with host ns and side
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from kvm_memfd_qemu_guest import UnknownGuest
from kvm_memfd_witness import FILE, RamWitness
from qemu.qmp import QMPError

from common.checks import INCOMING, OUTGOING
from common.dialogue import awaited
from common.guest_lines import GUEST, TRANSCRIPT
from common.machine_ram import MachineRam
from common.qemu_guest import Failed, Guest, OurGuest
from common.qemu_monitor import QMP_SECONDS, Monitor, connected
from common.stage import Companion, Surroundings

# Where QEMU is to save RAM too; "disk" is a way to cross of bench/ways_to_cross.py.
WITH_RAM = ("ram-in-stream", "disk")
_UNLIMITED = {"max-bandwidth": 1 << 40}

# QEMU that was killed says nothing more.
_SAVE_SECONDS = 10.0
_SIDES = (OUTGOING, INCOMING)
# Without these there is no guest; and where the host waits for one.
_NEEDED = ("qmp", "guest", "save", "resume")
_WITH_GUEST = ("goes-on", "swept", "swept-again")


class QemuHost:
    """The companion: what is due at each rendezvous."""

    def __init__(self, machine: Surroundings, ram: RamWitness) -> None:
        # At once: a QEMU that finds nobody at the other end takes its monitor for closed.
        self._lines = {side: connected(machine.ports[f"qmp.{side}"]) for side in _SIDES}
        self._ram = ram
        parameters = _parameters(machine.spec.cmdline)
        self._control = parameters.get("control", "")
        self._transcript = (machine.folder / TRANSCRIPT).open("w", buffering=1)
        self._guest = self._guest_of(machine, parameters)
        self._monitor: Monitor | None = None
        self._lost = ""
        self._side = OUTGOING
        self._uri = ""
        self._due: Mapping[str, Callable[[], None]] = {
            "qmp": self._connect,
            "guest": self._guest_is_up,
            "preserved": self._guest.run_on,
            "save": self._save,
            "goes-on": self._goes_on,
            "resume": self._resume,
            "swept": self._guest.work_after_resume,
            "swept-again": self._last_look,
        }

    def heard(self, text: str) -> None:
        """Take a line of the dialogue; at a rendezvous, do what is due before it is answered."""
        self._ram.heard(text)
        if text in ("# side=incoming", "# at in-place"):
            self._side = INCOMING
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
                self._write(failed=name, why=str(error) or type(error).__name__)

    def _guest_of(self, machine: Surroundings, parameters: Mapping[str, str]) -> Guest:
        line, folder = machine.ports[GUEST], machine.folder
        if parameters.get("guest_image") == "1":
            return UnknownGuest(line, folder, ram=self._ram, write=self._write)
        return OurGuest(
            line,
            folder,
            control=self._control,
            gib=int(parameters.get("guest_memory", "0")) >> 10,
            # bench/ways_to_cross.py measures what a round of 4 GiB would take many times as long as
            rounds=parameters.get("proof", "1") != "0",
        )

    def close(self) -> None:
        """The lines are closed; everything heard until now is on disk."""
        if self._monitor:
            self._monitor.close()
        self._guest.close()
        for line in self._lines.values():
            line.close()
        self._transcript.close()

    def _write(self, **entry: object) -> None:
        entry = {"t": time.monotonic_ns(), "side": self._side, **entry}
        self._transcript.write(json.dumps(entry) + "\n")

    def _qemu(self) -> Monitor:
        if self._monitor is None:
            raise Failed("QEMU's monitor is not connected")
        return self._monitor

    def _connect(self) -> None:
        if self._monitor:
            self._monitor.close()
            self._monitor = None
        self._monitor = Monitor(self._lines[self._side], self._side, self._write)

    def _guest_is_up(self) -> None:
        self._guest.come_up()
        if self._control == "paused-early":
            self._qemu().do("stop")

    def _prepare_migration(self) -> None:
        states = {"events": True, "x-ignore-shared": self._control not in WITH_RAM}
        wanted = [{"capability": name, "state": state} for name, state in states.items()]
        self._qemu().do("migrate-set-capabilities", capabilities=wanted)
        self._qemu().do("migrate-set-parameters", mode="cpr-reboot", **_UNLIMITED)

    def _save(self) -> None:
        self._prepare_migration()
        self._qemu().do("migrate", uri=self._uri)
        self._qemu().wait_migration(
            seconds=self._guest.patience if self._control in WITH_RAM else _SAVE_SECONDS
        )
        self._qemu().do("query-status")

    def _goes_on(self) -> None:
        self._qemu().do("cont")
        self._guest.work()

    def _resume(self) -> None:
        if self._control != "cold-guest":
            self._prepare_migration()
            self._qemu().do("migrate-incoming", uri=self._uri, **{"exit-on-error": False})
            self._qemu().wait_migration(
                seconds=self._guest.patience if self._control in WITH_RAM else QMP_SECONDS
            )
        self._qemu().do("cont")
        self._qemu().wait_event("RESUME")
        self._qemu().do("query-status")

    def _last_look(self) -> None:
        self._guest.work()
        if self._control == "guest-reset":
            self._qemu().do("system_reset")
        self._qemu().take_events()
        self._qemu().do("query-status")


def _parameters(cmdline: str) -> dict[str, str]:
    """The workload's parameters: stage.NAME=VALUE."""
    words = (word.partition("=") for word in cmdline.split() if word.startswith("stage."))
    return {key.removeprefix("stage."): value for key, _, value in words}


@contextmanager
def qemu_host(machine: Surroundings) -> Iterator[Companion]:
    """The companion of the workload; leaves its files in the trial's folder."""
    with MachineRam(machine.process.pid) as memory, ThreadPoolExecutor(1) as pool:
        ram = RamWitness(memory, pool)
        host = QemuHost(machine, ram)
        try:
            yield host
        finally:
            host.close()
        (machine.folder / FILE).write_text(json.dumps(ram.result()) + "\n")

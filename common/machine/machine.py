# SPDX-License-Identifier: GPL-2.0-only
"""The machine whose kernel is updated: a transient libvirt domain with two serial lines."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

import libvirt
import libvirt_qemu
import pexpect

from common.errors import HarnessError
from common.host.processes.precedence import prefer
from common.host.sampling.beside import host_sampler
from common.host.sampling.echo import Echo
from common.machine.domain import MachineSpec, domain_xml
from common.machine.hypervisor import Hypervisor
from common.machine.patience import Deadline, Patience
from common.machine.serial_line import SerialLine
from common.machine.stamped_line import ConsoleFile
from common.record import console
from common.record.dialogue import Line
from common.record.qemu.fault import HUNG_LINE
from common.record.qemu.process import QemuProcess, process_identity, stat_fields, ticks

# A dying kernel still prints its call trace; wait that long for it.
_LAST_WORDS_SECONDS = 1.0
_LOOK_SECONDS = 0.25
# A silence in which one looks whether the kernel is dead, and the time between looks.
_SILENT_SECONDS, _LOOK_AGAIN_SECONDS = 2.0, 1.0
# Kernels that begin without a word of the workload between them: two are a kexec unheard of.
_BEGINNINGS = 4
_LOOKS, _BETWEEN_LOOKS_SECONDS = 2, 1.0
# Of the looks at one silence, those at which QEMU is asked for its CPUs too, from 5 s on: a CPU
# that QEMU forgot goes on after an RCU stall warning, and nobody could tell later what it lacked.
_CPU_LOOKS = range(4, 4 + _LOOKS)
# From the end of file on a dialogue to QEMU's end; only a QEMU that hangs takes as long.
_END_SECONDS = 30.0
# Beside a dozen busy processes QEMU's monitor answered within a few seconds.
_ANSWER_SECONDS = 60.0


class KernelDied(Exception):
    """The console showed a line after which this kernel will not go on."""


class MachineSilent(Exception):
    """Nothing was said on the dialogue within the bound."""


class MachineGone(Exception):
    """End of file on the dialogue: QEMU or the machine has ended."""


class Watch(Protocol):
    """Who looks at a machine that says nothing."""

    def silent(self) -> str | None:
        """Look at it; what its kernel died of, None where nothing shows that it is dead."""

    def reset(self) -> str | None:
        """Look at it: the platform was reset just now; what it died of, where nothing more is to
        be heard of it. Called in a thread of its own."""


class Machine:
    """Context manager: a started machine. Its consoles, QMP events and trace go into `folder`.

    Raises HarnessError with libvirt's own words when the machine cannot be started.
    """

    def __init__(self, spec: MachineSpec, *, hypervisor: Hypervisor, folder: Path) -> None:
        self.spec = spec
        self.folder = folder
        self._hypervisor = hypervisor
        self._events_lock = threading.Lock()
        self._last_words: threading.Timer | None = None
        self._heard: deque[str] = deque()
        self._console_spoke = False
        self._beginnings = 0
        self._looks: list[threading.Thread] = []
        self._one_look = threading.Lock()
        self._hung = threading.Event()
        self.watch: Watch | None = None
        self.on_console: Callable[[str], None] | None = None
        """Hears the console too, in a thread of its own: must be quick, and must not raise."""

    def __enter__(self) -> Machine:
        with ExitStack() as stack:
            sockets = self.scratch = self._hypervisor.folder / self.spec.name
            sockets.mkdir()
            echo = stack.enter_context(Echo())
            console_file, dialogue_socket = self.folder / "console.log", sockets / "ttyS1"
            self.ports: Mapping[str, Path] = {n: sockets / n for n in self.spec.ports}
            xml = domain_xml(
                replace(self.spec, qemu_args=(*self.spec.qemu_args, *echo.qemu_args())),
                console=console_file,
                dialogue=dialogue_socket,
                ports=self.ports,
                trace_log=self.folder / "qemu-trace.log",
            )
            (self.folder / "domain.xml").write_text(xml + "\n")
            self._qmp = stack.enter_context((self.folder / "qmp.jsonl").open("w", buffering=1))
            self.console = ConsoleFile(console_file, on_line=self._on_console_line)
            stack.callback(self.console.close)
            self._domain = self._create(xml)
            stack.callback(self._destroy)
            self.process = self._find_process()
            self._hypervisor.cleanup.end_process(self.process.pid)
            self.preferred = prefer(self.process.pid)
            self.argv = _argv(self.process.pid)
            stack.callback(self._stop_events, self._watch_events())
            self.dialogue = SerialLine(
                "dialogue", dialogue_socket, folder=self.folder, on_line=lambda _line: None
            )
            stack.callback(self.dialogue.close)
            self.clock_offset_ns = time.time_ns() - time.monotonic_ns()
            self.started_ns = time.monotonic_ns()
            self._domain.resume()
            stack.enter_context(host_sampler(self.folder, self.process.pid, echo))
            self._patience = stack.enter_context(Patience(self.folder))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._last_words:
            self._last_words.cancel()
        self._end_looks()
        self._stack.close()

    def _create(self, xml: str) -> libvirt.virDomain:
        flags = libvirt.VIR_DOMAIN_START_PAUSED
        if not self._hypervisor.embedded:
            flags |= libvirt.VIR_DOMAIN_START_AUTODESTROY
        try:
            return self._hypervisor.connection.createXML(xml, flags)
        except libvirt.libvirtError as error:
            raise HarnessError(
                f"libvirt could not start the machine: {error.get_error_message()}"
                f" (its XML: {self.folder / 'domain.xml'})"
            ) from error

    def _destroy(self) -> None:
        try:
            self._domain.destroy()
        except libvirt.libvirtError as error:
            # The domain is transient: when QEMU has ended by itself it no longer exists.
            if error.get_error_code() not in (
                libvirt.VIR_ERR_NO_DOMAIN,
                libvirt.VIR_ERR_OPERATION_INVALID,
            ):
                raise HarnessError(f"libvirt could not end the machine: {error}") from error

    def _find_process(self) -> QemuProcess:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"guest={self.spec.name},".encode() in (folder / "cmdline").read_bytes():
                    found = process_identity(int(folder.name))
                    if found:
                        return found
            except OSError:
                continue  # ended while we looked
        raise HarnessError(f"no QEMU process for {self.spec.name}; is the connection a remote one?")

    def _watch_events(self) -> int:
        def on_event(
            _connection: object,
            _domain: object,
            event: str,
            s: int,
            us: int,
            details: str,
            _o: object,
        ) -> None:
            entry = {
                "t": time.monotonic_ns(),
                "qemu_time": s + us / 1e6,
                "event": event,
                "details": json.loads(details) if details else {},
            }
            with self._events_lock:
                if not self._qmp.closed:
                    self._qmp.write(json.dumps(entry) + "\n")
            if event == "RESET" and self.watch:
                # At once, whatever waits meanwhile: what is in RAM will be written over. In a
                # thread of its own, because here libvirt answers nothing.
                look = threading.Thread(target=self._look_at_reset, args=(self.watch,))
                look.start()
                self._looks.append(look)  # started: another thread may wait for its end at once

        return int(
            libvirt_qemu.qemuMonitorEventRegister(
                self._hypervisor.connection, self._domain, None, on_event, None
            )
        )

    def _stop_events(self, registration: int) -> None:
        libvirt_qemu.qemuMonitorEventDeregister(self._hypervisor.connection, registration)

    def _on_console_line(self, line: Line) -> None:
        self._console_spoke = True
        if self.on_console:
            self.on_console(line.text)
        self._beginnings += console.is_beginning(line.text)
        if self._last_words is None and console.is_fatal(line.text):
            died = KernelDied(console.strip_prefix(line.text))
            self._last_words = threading.Timer(_LAST_WORDS_SECONDS, self.dialogue.wake, [died])
            self._last_words.daemon = True
            self._last_words.start()

    def next_line(self, *, silence: float, deadline: Deadline) -> str:
        """The workload's next line.

        Raises MachineSilent when for `silence` seconds neither the dialogue nor the console said
        anything, at the deadline, or when a kernel begins again and again; KernelDied when the
        console shows a panic or oops, MachineGone at end of file. Time in which the host did not
        run us does not count.
        """
        if self._heard:
            return self._heard.popleft()
        quiet = self._patience.bound(silence)
        look = self._patience.bound(_SILENT_SECONDS)
        self._beginnings = 0
        looks = 0
        while True:
            try:
                # All whole lines at once: one expect() for each of 2,000 lines took 5 s.
                self.dialogue.expect(rb"(?s)(.*)\n", timeout=_LOOK_SECONDS)
                break
            except pexpect.TIMEOUT:
                if self._console_spoke:
                    self._console_spoke = False
                    quiet = self._patience.bound(silence)
                    look = self._patience.bound(_SILENT_SECONDS)
                if look.passed():
                    looks += 1
                    self._look_at_silence()
                    if looks in _CPU_LOOKS:
                        self._note_look(anew=looks == _CPU_LOOKS[0])
                    look = self._patience.bound(_LOOK_AGAIN_SECONDS)
                    continue  # a look may outlast the bounds: what was said meanwhile is read
                if self._beginnings >= _BEGINNINGS:
                    what = f"a kernel began {self._beginnings} times, and no workload spoke"
                    raise MachineSilent(self._last_sign(what)) from None
                if quiet.passed():
                    what = f"nothing on dialogue and console for {silence:.0f} s"
                    raise MachineSilent(self._last_sign(what)) from None
                if deadline.passed():
                    raise MachineSilent(self._last_sign("not done in time")) from None
            except pexpect.EOF:
                raise MachineGone("end of file on the dialogue") from None
        match = self.dialogue.match
        assert isinstance(match, re.Match)
        heard: bytes = match[1]
        lines = heard.decode("utf-8", "backslashreplace").split("\n")
        self._heard.extend(line.rstrip("\r") for line in lines)
        return self._heard.popleft()

    def _look_at_silence(self) -> None:
        if self.watch and (died := self.watch.silent()):
            raise KernelDied(died)

    def deadline(self, seconds: float) -> Deadline:
        """A point in time that several waits share; time in which we did not run puts it off."""
        return self._patience.bound(seconds)

    def _look_at_reset(self, watch: Watch) -> None:
        with self._one_look:
            # It stands still meanwhile: its firmware would write over what there is to see.
            with suppress(HarnessError):
                self._domain_call("suspend")
            died = watch.reset()
            with suppress(HarnessError):  # it may have come to its end
                self._domain_call("resume")
        if died:
            self.dialogue.wake(KernelDied(died))

    def _end_looks(self) -> None:
        while self._looks:
            self._looks.pop().join()

    def _last_sign(self, what: str) -> str:
        said = (self.folder / "console.log").read_bytes().splitlines()
        last = said[-1].decode("utf-8", "backslashreplace") if said else "nothing"
        return f"{what}; the console's last line: {console.strip_prefix(last)}"

    def answer(self, rendezvous: str) -> None:
        """Let the workload go on from where it said ``# await RENDEZVOUS``.

        Raises MachineGone where QEMU has ended since.
        """
        try:
            self.dialogue.send(f"go {rendezvous}\n")
        except OSError as error:
            raise MachineGone(f"nobody reads the dialogue: {error.strerror}") from error

    def note_state(self) -> None:
        """Write what QEMU says of each CPU, and of its local APIC, to qemu-state.txt, and what
        Linux says of QEMU's threads.

        For a machine that has fallen silent, or whose guest stands still: it tells a CPU that is
        busy from one that waits for an interrupt which never comes. Asked twice, so that what
        stands still can be told.
        """
        for look in range(_LOOKS):
            if look:
                time.sleep(_BETWEEN_LOOKS_SECONDS)
            self._note_look(anew=not look)

    def _note_look(self, *, anew: bool) -> None:
        questions = ["info status", "info registers -a"]
        for cpu in range(self.spec.cpus):
            questions += [question.format(cpu=cpu) for question in self.spec.arch.cpu_questions]
        with (self.folder / "qemu-state.txt").open("w" if anew else "a") as state:
            for question in questions:
                state.write(f"(qemu) {question}\n{self.ask_qemu(question)}\n")
            state.write(f"(host) threads\n{_threads(self.process.pid)}\n")

    def note_jit(self, word: str) -> None:
        """Add to jit.jsonl what QEMU's TCG says of its translations, at this word of the workload.

        And the CPU time that QEMU has had, in s, which is the same on a busy host. QEMU goes
        through all translations for its answer, which takes tens of ms, and devices stand still
        meanwhile.
        """
        begin, cpu_s = time.monotonic_ns(), _cpu_seconds(self.process.pid)
        answer = self.ask_qemu("info jit")
        entry = {"t": begin, "ms": (time.monotonic_ns() - begin) / 1e6, "cpu_s": cpu_s}
        with (self.folder / "jit.jsonl").open("a") as file:
            file.write(json.dumps({**entry, "word": word, "said": answer}) + "\n")

    def note_last_words(self) -> None:
        """Keep QEMU's own log, as qemu.log: it has ended by itself, and says there why.

        Its lines are closed before it has ended: on a busy host, well before.
        """
        self.wait_end()
        kept, log = self.folder / "qemu.log", self._hypervisor.log_of(self.spec.name)
        if log and log.exists():
            shutil.copyfile(log, kept)
        if self._hung.is_set():
            with kept.open("a") as file:
                file.write(f"{HUNG_LINE} for {_ANSWER_SECONDS:.0f} s, and it was killed\n")

    def last_words(self) -> str:
        """The last line of QEMU's own log."""
        log = self._hypervisor.log_of(self.spec.name)
        said = log.read_text(errors="replace").splitlines() if log and log.exists() else []
        return said[-1] if said else "it said nothing"

    def traced(self, event: str) -> bool:
        """Whether QEMU says that it traces this event; False of one that it does not know."""
        question = {"execute": "trace-event-get-state", "arguments": {"name": event}}
        try:
            answer = self._monitor(json.dumps(question))
        except libvirt.libvirtError as error:
            raise HarnessError(f"QEMU's monitor: {error.get_error_message()}") from error
        return any(one["state"] == "enabled" for one in json.loads(answer).get("return", ()))

    def registers(self) -> str:
        """What QEMU's monitor says of all CPUs' registers now; the machine runs on meanwhile."""
        return self.ask_qemu("info registers -a")

    def stop(self) -> None:
        """Let the machine stand still; it may do so already."""
        self._end_looks()
        self._domain_call("suspend")

    def go_on(self) -> None:
        """Let the machine run that stands still."""
        self._domain_call("resume")

    def _domain_call(self, name: Literal["suspend", "resume"]) -> None:
        try:
            with self._answered():
                getattr(self._domain, name)()
        except libvirt.libvirtError as error:
            raise HarnessError(f"libvirt: {name}: {error.get_error_message()}") from error

    def begin_again(self) -> None:
        """Forget what was heard: the machine stands still, and another life of it is to come."""
        if self._last_words:
            self._last_words.cancel()
        self._last_words = None
        self._end_looks()
        self.console.cut()
        self.dialogue.forget()
        self._heard.clear()

    def physical(self, cpu: int, virtual: int) -> int | None:
        """Where that CPU's MMU leads to from a virtual address now; None where nowhere."""
        command = {"command-line": f"gva2gpa {virtual:#x}", "cpu-index": cpu}
        question = {"execute": "human-monitor-command", "arguments": command}
        try:
            answer = self._monitor(json.dumps(question))
        except libvirt.libvirtError:
            return None
        found = re.match(r"gpa: (0x[0-9a-f]+)", json.loads(answer).get("return", ""))
        return int(found[1], 16) if found else None

    def ask_qemu(self, question: str) -> str:
        """What QEMU's monitor (HMP) answers; to most commands that succeed nothing."""
        human = libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
        try:
            answer = self._monitor(question, human)
        except libvirt.libvirtError as error:
            return f"no answer: {error.get_error_message()}\n"
        return answer.replace("\r\n", "\n")

    def _monitor(self, question: str, flags: int = 0) -> str:
        with self._answered():
            return str(libvirt_qemu.qemuMonitorCommand(self._domain, question, flags))

    @contextmanager
    def _answered(self) -> Iterator[None]:
        """For an answer of QEMU's, which libvirt awaits for ever: a QEMU that gives none is killed.

        Libvirt raises an error then, and there is an end of file on the dialogue.
        """
        bound, done = self._patience.bound(_ANSWER_SECONDS), threading.Event()

        def watch() -> None:
            while not done.wait(_LOOK_SECONDS):
                if bound.passed():
                    self._hung.set()
                    with suppress(ProcessLookupError):
                        os.kill(self.process.pid, signal.SIGKILL)
                    return

        thread = threading.Thread(target=watch, name="answer", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def process_now(self) -> QemuProcess | None:
        """The identity of the machine's QEMU at this moment, None when it has ended."""
        return process_identity(self.process.pid)

    def wait_end(self) -> None:
        """Wait until QEMU has ended, whose end of the dialogue is closed: that comes first."""
        with suppress(ProcessLookupError):
            pidfd = os.pidfd_open(self.process.pid)
            try:
                select.select([pidfd], [], [], _END_SECONDS)
            finally:
                os.close(pidfd)


def _cpu_seconds(pid: int) -> float | None:
    """User and system time of all threads, None when the process has ended."""
    try:
        return ticks(stat_fields(Path(f"/proc/{pid}"))) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return None


def _threads(pid: int) -> str:
    """A line for each thread: its name, its state, its time in ticks, where it sleeps."""
    lines = []
    for task in sorted(Path(f"/proc/{pid}/task").glob("[0-9]*")):
        with suppress(OSError):
            fields, place = stat_fields(task), (task / "wchan").read_text()
            name = (task / "comm").read_text().strip()
            lines.append(f"{name} {fields[0]} {ticks(fields)} {place}")
    return "\n".join(lines)


def _argv(pid: int) -> tuple[str, ...]:
    raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    return tuple(
        word.decode("utf-8", "backslashreplace") for word in raw.rstrip(b"\0").split(b"\0")
    )

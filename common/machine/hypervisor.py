# SPDX-License-Identifier: GPL-2.0-only
"""A libvirt connection: the embedded QEMU driver in a folder of our own, or the user's URI."""

from __future__ import annotations

import operator
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

import libvirt

from common.errors import HarnessError
from common.host.processes.cleanup import CleanupProcess
from common.host.processes.subreaper import Subreaper
from common.host.processes.told_to_end import told_to_end
from common.host.qemu_binary import qemu_version
from common.paths import cache_root

# The embedded driver has no daemon beside it: no virtlogd, no cgroup manager, no
# mount namespace, and no file ownership to put back.
_QEMU_CONF = """\
stdio_handler = "file"
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
"""


class Hypervisor:
    """Context manager: an open libvirt connection whose machines end with this process.

    With `uri` None the embedded driver (qemu:///embed) is used: it needs no daemon and
    leaves nothing behind. Raises HarnessError with libvirt's own words when it refuses.
    """

    def __init__(self, uri: str | None = None) -> None:
        self.uri = uri
        self.embedded = uri is None

    def __enter__(self) -> Hypervisor:
        with ExitStack() as stack:
            self.cleanup = stack.enter_context(CleanupProcess())
            stack.enter_context(told_to_end(self.cleanup))
            if self.embedded:
                stack.enter_context(Subreaper())
            self.folder = Path(tempfile.mkdtemp(prefix="kexec-stages-", dir=_plain_folder()))
            self.cleanup.remove_folder(self.folder)
            self.connection = self._open()
            stack.callback(self.connection.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @contextmanager
    def workspace(self, name: str) -> Iterator[Path]:
        """A new folder of that name for what a machine is started from; it goes with the block."""
        folder = self.folder / name
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def _open(self) -> libvirt.virConnect:
        if self.embedded:
            _keep_run_time_files()
        # Every error is raised as well; libvirt need not print it. A function of C's takes it: in
        # one of Python's a signal's handler may run, and libvirt-python loses what that raises.
        libvirt.registerErrorHandler(operator.is_, None)
        _run_event_loop()
        try:
            return libvirt.open(self.uri or f"qemu:///embed?root={self._embedded_root()}")
        except libvirt.libvirtError as error:
            raise HarnessError(
                f"libvirt refused {self.uri or 'its embedded QEMU driver'}: "
                f"{error.get_error_message()} (./kexec-stages doctor shows what is missing)"
            ) from error

    def _embedded_root(self) -> Path:
        root = self.folder / "libvirt"
        (root / "etc").mkdir(parents=True)
        conf = _QEMU_CONF
        if os.geteuid() == 0:
            conf += 'user = "root"\ngroup = "root"\n'
        (root / "etc" / "qemu.conf").write_text(conf)
        # Probing QEMU's capabilities takes seconds; libvirt caches the answer here.
        shared = cache_root() / "libvirt"
        shared.mkdir(parents=True, exist_ok=True)
        (root / "cache").symlink_to(shared)
        return root

    def log_of(self, machine: str) -> Path | None:
        """What QEMU of that machine wrote to its standard error; None where a daemon keeps it."""
        return (
            self.folder / "libvirt" / "log" / "qemu" / f"{machine}.log" if self.embedded else None
        )

    def versions(self, emulator: Path) -> dict[str, str]:
        """{"libvirt": X.Y.Z of the connection, "qemu": X.Y.Z of `emulator`}.

        libvirt itself would report its default emulator's version, which may be another.
        """
        return {
            "libvirt": _dotted(self.connection.getLibVersion()),
            "qemu": qemu_version(emulator),
        }


def _plain_folder() -> str:
    """TMPDIR, unless what lies there cannot be named: then /tmp.

    A socket's path has 107 bytes; gen_init_cpio splits at blanks, libvirt's URI at % and ?.
    """
    named = tempfile.gettempdir()
    plain = re.fullmatch(r"/[A-Za-z0-9/._+-]{0,40}", named)
    return named if plain else "/tmp"


def _dotted(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _keep_run_time_files() -> None:
    """Have libvirt put a user's run-time files (a token, locks of host devices) into our cache.

    Those are for all drivers and know of no `root`. Where nothing names a folder for them, GLib
    falls back to ~/.cache; it asks once in the life of a process, so it must be one that stays.
    """
    folder = cache_root() / "libvirt" / "run"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ["XDG_RUNTIME_DIR"] = str(folder.absolute())


_loop_lock = threading.Lock()


def _run_event_loop() -> None:
    """Start libvirt's event loop once per process, before the first connection."""

    def serve() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    with _loop_lock:
        if any(thread.name == "libvirt-events" for thread in threading.enumerate()):
            return
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=serve, name="libvirt-events", daemon=True).start()

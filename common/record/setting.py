# SPDX-License-Identifier: GPL-2.0-only
"""What only the harness knows about a trial: trial.json."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from common.arch.known import ARCHITECTURES, DEFAULT
from common.record.cpus.kernel_layout import KernelLayout
from common.record.dialogue import Stored
from common.record.qemu.process import QemuProcess
from common.record.stored_file import Count, Hex, Name, Stamp, Strict, Text

SCHEMA: Final = 5
"""Of what a record holds. A run of another one is for the version of this program that made it."""


ATTEMPTS = 3
"""So often a trial is run whose host, or QEMU, disturbs it; each attempt stays in the record."""


LONGEST = 16
"""So many updates a chain may have."""


Nonce = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


Word = Annotated[str, Field(pattern=r"^[!-~]*$", max_length=200)]


Ended = Literal["done", "bail", "crashed", "timeout", "gone", "rebooted", "interrupted"]


class KernelFacts(Strict):
    """One of the two kernels, as it was built. Of a prebuilt one only the image is known, and its
    configuration if embedded (IKCONFIG); without that `config_sha256` is None."""

    release: Word
    build_id: Hex
    key: Text
    source: Text
    image_sha256: Hex
    config_sha256: Hex | None
    patches: tuple[Text, ...] = ()
    prebuilt: bool = False
    offers: tuple[Word, ...] | None = None
    """Names of the formats that are in its image ("memfd-v2"), sorted; None in a record that is
    older than this field."""
    layout: KernelLayout | None = None
    """Where note, banner and text stand in its image; None where its ELF file does not tell."""

    @property
    def config(self) -> str:
        """The first digits of the configuration's digest, or that there is none to be had."""
        return self.config_sha256[:12] if self.config_sha256 else "unknown"


class Host(Strict):
    """Where the trial ran. No figure means anything without accelerator and its reason."""

    cpu: Text
    cpus: Count
    memory_mib: Count
    kernel: Text
    system: Text
    accelerator: Name
    accelerator_reason: Text
    preferred: bool = False
    """QEMU and the host's witnesses came before other processes; see
    common/host/processes/precedence.py."""
    versions: dict[Name, Text]
    emulator: Text | None = None
    """The QEMU that ran the machine: its path."""


class Crash(Strict):
    """How a kernel died, by its console or its log; decoded on the host that built it."""

    phase: Text
    """What the trial was in: "after 'pause'", "incoming kernel"."""
    kernel: Word
    """Release of the kernel that died."""
    lines: tuple[Text, ...]
    """The console lines that matter first, at most ten."""
    stack: tuple[Text, ...]
    """The call trace, by the kernel's scripts/decode_stacktrace.sh."""
    decoded_by: Text
    """With what it was decoded, or why it was not."""


class InnerQemu(Stored):
    """The packaged QEMU that runs inside the machine."""

    version: Text
    sha256: Hex
    """Of the program."""
    packages_sha256: Hex | None = None
    """Of the list of the packages' own digests, where the QEMU was unpacked for us."""


class Setting(Strict):
    """What only the harness knows about a trial."""

    schema_version: Literal[5] = SCHEMA
    stage: Annotated[int, Field(ge=1, le=99)]
    name: Name
    """Unique within the run: "main", "control-NAME", "repeat-07"; a further attempt at a disturbed
    trial is "main-attempt-2"."""
    attempt: Annotated[int, Field(ge=1, le=ATTEMPTS)] = 1
    control: Name | None
    options: dict[Name, Annotated[str, Field(pattern=r"^[a-z0-9]{1,16}$")]]
    workload: Literal["vmm", "qemu"] = "vmm"
    lane: Literal["default", "debug", "server"] = "default"
    series: Text = "ours"
    """What was applied to the kernels' source: "ours", "none", or a folder of patches."""
    one_kernel: bool = False
    """The user gave one image for both sides."""
    chain: Annotated[int, Field(ge=1, le=LONGEST)] = 1
    """Updates in this machine, one after the other; see common/stage/chain.py."""
    append: tuple[Text, ...] = ()
    """The user's own words on both kernels' command lines; see common/stage/append.py."""
    load: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Busy processes that the harness ran beside the trial; see common/host/processes/load.py."""
    jobs: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Trials that the harness ran at once, this one among them; see common/run/workers.py."""
    architecture: Name = DEFAULT.name
    """Of the machine and its kernels; see common/arch/."""
    cpu_model: Name | None = None
    """The emulated CPU that the user chose; None: the architecture's first."""
    nonce: Nonce
    host: Host
    outgoing: KernelFacts
    incoming: KernelFacts
    guest: KernelFacts | None = None
    """The kernel of the guest, where the guest is a Linux."""
    guest_image: dict[Text, Hex] | None = None
    """Name -> sha256 of the files that the user gave as the guest."""
    inner_qemu: InnerQemu | None = None
    cmdline: Text
    argv: Annotated[tuple[Text, ...], Field(min_length=1, max_length=10_000)]
    clock_offset_ns: Annotated[int, Field(ge=-(1 << 62), lt=1 << 62)]
    """CLOCK_REALTIME minus CLOCK_MONOTONIC, to line up QEMU's trace stamps."""
    started_ns: Stamp
    ended_ns: Stamp
    """When all of the machine was gone; every stamp of the trial is between the two."""
    ended: Ended
    ended_detail: Text
    crash: Crash | None = None
    process_at_start: QemuProcess
    process_at_end: QemuProcess | None

    @model_validator(mode="after")
    def _of_one_machine(self) -> Setting:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture {self.architecture} is unknown here")
        if not self.started_ns < self.ended_ns:
            raise ValueError("ended_ns is not after started_ns")
        if not any(f"guest=stages-{self.nonce}," in word for word in self.argv):
            raise ValueError("argv starts no machine with this nonce")
        if ("-append", self.cmdline) not in pairwise(self.argv):
            raise ValueError("argv gives the machine another command line than cmdline")
        return self

    @property
    def plan(self) -> str:
        """The name that all attempts at a trial share."""
        return self.name.removesuffix(f"-attempt-{self.attempt}")

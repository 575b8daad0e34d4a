# SPDX-License-Identifier: GPL-2.0-only
"""The shell verb: the machine of a stage, with a shell on its console."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from common.cli.kernel_options import chosen_kernels
from common.cli.options import run_options
from common.errors import HarnessError
from common.host.accel import probe
from common.host.qemu_binary import qemu_path
from common.run.initramfs import build_workload, make_initramfs
from common.run.kernels import kernels_of
from common.run.setup import options_of
from common.stage.configured import configured
from common.stage.loading import load_stage

_BUSYBOX = ("/bin/busybox", "/usr/bin/busybox")
_INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t debugfs none /sys/kernel/debug
echo "The stage's workload is /workload, the incoming kernel /incoming. Ctrl-A X leaves QEMU."
exec setsid cttyhack sh
"""


def shell(arguments: argparse.Namespace) -> int:
    """Boot the stage's outgoing kernel into a busybox shell on this terminal; QEMU's status."""
    choice = chosen_kernels(arguments)
    stage = configured(load_stage(arguments.stage), choice=choice)
    busybox = next((path for path in map(Path, _BUSYBOX) if path.exists()), None)
    if busybox is None:
        raise HarnessError("the shell needs a static busybox: apt install busybox-static")
    kernels = kernels_of(stage, choice)
    outgoing, incoming = kernels.outgoing, kernels.incoming
    options = options_of(stage, run_options(arguments).numbers)
    with tempfile.TemporaryDirectory(prefix="kexec-stages-shell-") as name:
        folder = Path(name)
        init = folder / "init"
        init.write_text(_INIT)
        workload = build_workload(stage.sources, headers=outgoing.headers, arch=stage.arch)
        initrd = make_initramfs(
            {
                "/init": init,
                "/bin/busybox": busybox,
                "/workload": workload,
                "/incoming/kernel": incoming.image,
            },
            gen_init_cpio=outgoing.gen_init_cpio,
            target=folder / "initrd",
        )
        accelerator = probe(stage.arch, wanted=arguments.accel)
        cpu = ",".join([stage.arch.cpus[0].name, *(f"{f}=on" for f in stage.arch.cpus[0].features)])
        command = [str(qemu_path(stage.arch)), "-machine", stage.arch.machine]
        command += ["-accel", accelerator.name, "-nographic", *stage.arch.qemu_args]
        command += ["-cpu", "host" if accelerator.name == "kvm" else cpu]
        command += ["-smp", str(stage.cpus), "-m", str(stage.size(options).machine_mib)]
        command += ["-kernel", str(outgoing.image), "-initrd", str(initrd), "-no-reboot"]
        command += ["-append", " ".join((f"console={stage.arch.console}", *stage.cmdline))]
        print(" ".join(command), file=sys.stderr)
        return subprocess.run(command, check=False).returncode

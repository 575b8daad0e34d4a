# SPDX-License-Identifier: GPL-2.0-only
"""The shared part of kexec-stages: machine, consoles, kexec, evidence, verdict, report."""

import os

__version__ = "0.1.0"

# libvirt reads this once, when it is first imported. Its errors are raised as exceptions;
# what it would log on stderr beside them is chatter (taint by custom-argv and the like).
os.environ.setdefault("LIBVIRT_LOG_OUTPUTS", "4:file:/dev/null")

# SPDX-License-Identifier: GPL-2.0-only
"""What the host saw of the machine's CPUs and of the kernels they ran."""

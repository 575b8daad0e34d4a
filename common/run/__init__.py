# SPDX-License-Identifier: GPL-2.0-only
"""Acting: kernels, initramfs, one trial, one run."""

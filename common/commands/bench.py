# SPDX-License-Identifier: GPL-2.0-only
"""The bench verb; what is measured stands in bench/."""

from bench.against_luo_kexec_simple import bench

__all__ = ["bench"]

# SPDX-License-Identifier: GPL-2.0-only
"""Many runs: matrix, soak, mutants, the kernel's own tests, a series patch by patch."""

# SPDX-License-Identifier: GPL-2.0-only
"""Stage 2: a vfio-noiommu device."""

# SPDX-License-Identifier: GPL-2.0-only
"""The sampler that records, during each trial, when the host did not run us."""

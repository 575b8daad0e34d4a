# SPDX-License-Identifier: GPL-2.0-only
"""The sampler that notes, beside each trial, when the host did not run us."""

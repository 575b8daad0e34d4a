# SPDX-License-Identifier: GPL-2.0-only
"""Raw files of a trial turned into typed evidence; the seal over them."""

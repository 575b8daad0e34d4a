# SPDX-License-Identifier: GPL-2.0-only
"""What the host saw of the IOMMU, by the point at which it sampled, or by part of the trial."""

from __future__ import annotations

from common.record.evidence import Trial
from iommufd.evidence import Faults, Look, Table, Translation, TranslationEvidence

_SNAPSHOTS = ("outgoing", "booted", "refused", "adopted", "finished")


def snapshots(trial: Trial) -> tuple[str, ...]:
    """Where the host looked at tables that must not change; with QEMU nothing is refused."""
    qemu = trial.setting.workload == "qemu"
    return tuple(when for when in _SNAPSHOTS if not (qemu and when == "refused"))


def snapshot(trial: Trial, when: str) -> Look | None:
    """The host's look at the tables at that point, None when there was none."""
    looks = trial.seen(TranslationEvidence).tables
    return next((look for look in looks if look.when == when), None)


def tables(trial: Trial, when: str) -> Table | None:
    """What the IOMMU had for the device at that point, None when that is not known."""
    look = snapshot(trial, when)
    return look.device if look else None


def translation_of(trial: Trial) -> Translation:
    """What QEMU's trace has of the IOMMU."""
    return trial.seen(TranslationEvidence).translation


def faults(trial: Trial, when: str, bdf: str) -> Faults | None:
    """Faults of a device while `when` was going on, None for none."""
    return translation_of(trial).faults[when].get(bdf)

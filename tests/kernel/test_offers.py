# SPDX-License-Identifier: GPL-2.0-only
"""Names of formats in an image, in a tree, in patches."""

from __future__ import annotations

from pathlib import Path

from kernel.image.offers import offers_of_image, offers_of_patches, offers_of_tree
from kernel.image.prebuilt import kept_offers


def test_a_name_is_found_behind_a_pointer_and_as_a_whole() -> None:
    pointer = b"\x80\x12\x34\x81\xff\xff\xff\xff"
    image = (
        pointer + b"vfio-pci-v1\0\0\0" + pointer + b"memfd-v2\0" + b"\0iommu-liveupdate\0"
        b"my-pci-v1\0xpci-v3\0luo-v5 is old\0pci-v2x\0echo-v4\0kho-v4\0iommufd-live-v1\0"
    )
    found = offers_of_image(image)
    assert found == ("iommu-liveupdate", "iommufd-live-v1", "kho-v4", "memfd-v2", "vfio-pci-v1")


def test_a_tree_and_patches_define_them(tmp_path: Path) -> None:
    headers = tmp_path / "include" / "linux" / "kho" / "abi"
    headers.mkdir(parents=True)
    (headers / "pci.h").write_text('#define PCI_LUO_FLB_COMPATIBLE "pci-v2"\n/* "pci-v9" */\n')
    (headers / "luo.h").write_text('#define LUO_ABI_COMPATIBLE\t"luo-v5"\n')
    assert offers_of_tree(tmp_path) == ("luo-v5", "pci-v2")
    assert offers_of_tree(headers) == ()
    patch = tmp_path / "1.patch"
    patch.write_text('-#define A_COMPATIBLE "pci-v1"\n+#define A_COMPATIBLE "pci-v3"\n')
    assert offers_of_patches([patch]) == ("pci-v3",)


def test_an_image_is_looked_into_once(tmp_path: Path) -> None:
    image = tmp_path / "vmlinux"
    image.write_bytes(b"\0luo-v5\0")
    assert kept_offers(image) == ("luo-v5",)
    image.write_bytes(b"\0luo-v6\0")
    kept_offers.cache_clear()
    assert kept_offers(image) == ("luo-v5",)
    kept = tmp_path / "offers.json"
    kept.write_text(kept.read_text().replace('"by":"', '"by":"0'))
    kept_offers.cache_clear()
    assert kept_offers(image) == ("luo-v6",)
    kept.write_text("{")
    kept_offers.cache_clear()
    assert kept_offers(image) == ("luo-v6",)

# SPDX-License-Identifier: GPL-2.0-only
"""What is loaded into a kernel of the user's, and in which order."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest

from common.cli.options import chosen_guest
from common.cli.parser import build_parser
from common.errors import UsageError
from common.run.guest_image import GuestImage, check_guest
from common.run.guest_modules import needed_modules
from common.stage.loading import load_stage
from tests.run.test_guest_image import bzimage

GUEST = load_stage(3, "qemu").guest
MICROVM = {"guest_machine": 0}


def module(*depends: str) -> bytes:
    """What is read of one: its .modinfo."""
    return b"\x7fELF...\0license=GPL\0depends=" + ",".join(depends).encode() + b"\0name=x\0"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """igb and console with what they need, one by a package's ways of compression each."""
    tree = tmp_path / "6.1.0-50-amd64"
    for name, content in {
        "net/igb/igb.ko": module("dca", "i2c-algo-bit", "ptp"),
        "dca/dca.ko.xz": lzma.compress(module()),
        "i2c/i2c-algo-bit.ko.gz": gzip.compress(module("i2c-core")),
        "virtio/virtio_mmio.ko": module("virtio_ring", "virtio"),
        "virtio/virtio.ko": module(),
        "virtio/virtio_ring.ko": module("virtio"),
        "char/virtio_console.ko": module("virtio_ring", "virtio"),
        "sound/snd.ko": module(),
    }.items():
        file = tree / "kernel" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    builtin = ["kernel/drivers/ptp/ptp.ko", "kernel/drivers/i2c/i2c-core.ko"]
    (tree / "modules.builtin").write_text("\n".join(builtin) + "\n")
    return tree


def test_what_a_module_needs_comes_before_it_and_once(tree: Path) -> None:
    found = needed_modules(tree, ("virtio_mmio", "virtio_console", "igb"))
    assert list(found) == [
        "virtio.ko",
        "virtio_ring.ko",
        "virtio_mmio.ko",
        "virtio_console.ko",
        "dca.ko",
        "i2c_algo_bit.ko",
        "igb.ko",
    ]
    assert all(content.startswith(b"\x7fELF") for content in found.values())


def test_what_is_built_in_is_not_loaded(tree: Path) -> None:
    assert needed_modules(tree, ("ptp",)) == {}


def spoil(tree: Path, name: str, content: bytes | None, new_name: str = "") -> None:
    file = tree / name
    file.unlink()
    if content is not None:
        (file.with_name(new_name) if new_name else file).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "new_name", "words"),
    [
        ("kernel/net/igb/igb.ko", None, "", "has no module igb, nor is it built in"),
        ("kernel/dca/dca.ko.xz", None, "", "has no module dca, which igb needs"),
        ("kernel/dca/dca.ko.xz", b"not packed", "", "dca.ko.xz cannot be read"),
        ("kernel/dca/dca.ko.xz", b"text", "dca.ko", "dca.ko is not a kernel module"),
        ("kernel/dca/dca.ko.xz", b"", "dca.ko.zst", "compressed in a way that is not known"),
        ("modules.builtin", None, "", "is not a lib/modules/RELEASE: modules.builtin"),
    ],
)
def test_what_cannot_be_loaded_is_named(
    tree: Path, name: str, content: bytes | None, new_name: str, words: str
) -> None:
    spoil(tree, name, content, new_name)
    with pytest.raises(UsageError, match=words):
        needed_modules(tree, ("igb",))


def test_the_guests_initramfs_has_them_in_order(tree: Path, tmp_path: Path) -> None:
    image = GuestImage(kernel=bzimage(tmp_path / "bz"), modules=tree)
    files = image.module_files(tmp_path, ("virtio_mmio",))
    assert list(files) == [
        "/modules/00-virtio.ko",
        "/modules/01-virtio_ring.ko",
        "/modules/02-virtio_mmio.ko",
    ]
    assert files["/modules/00-virtio.ko"].read_bytes() == module()
    assert {"bz", "virtio.ko", "virtio_ring.ko"} < image.facts(("virtio_mmio",)).keys()


def chosen(*words: str) -> GuestImage:
    parsed = build_parser().parse_args(["run", "3", "--workload", "qemu", *words])
    found = chosen_guest(parsed)
    assert found
    return found


def test_stage_3_takes_a_kernel_and_nothing_else(tree: Path, tmp_path: Path) -> None:
    kernel, other = str(bzimage(tmp_path / "bz")), tmp_path / "other"
    other.write_bytes(b"x")
    check_guest(chosen("--guest-image", kernel, "--guest-modules", str(tree)), GUEST, MICROVM)
    check_guest(chosen("--guest-image", kernel), GUEST, MICROVM)
    for words in (
        ["--guest-image", str(other)],
        ["--guest-image", kernel, "--guest-initrd", kernel],
    ):
        with pytest.raises(UsageError, match="takes a bzImage, and no --guest-initrd"):
            check_guest(chosen(*words), GUEST, MICROVM)
    spoil(tree, "kernel/net/igb/igb.ko", None)
    with pytest.raises(UsageError, match="has no module igb"):
        check_guest(chosen("--guest-image", kernel, "--guest-modules", str(tree)), GUEST, MICROVM)


def test_modules_are_for_a_guest_that_runs_our_init(tree: Path, tmp_path: Path) -> None:
    image = chosen("--guest-image", str(bzimage(tmp_path / "bz")), "--guest-modules", str(tree))
    with pytest.raises(UsageError, match="--guest-modules goes with run 3"):
        check_guest(image, None, MICROVM)

# SPDX-License-Identifier: GPL-2.0-only
"""Building, caching, resuming and racing, on a toy tree."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from common.paths import CHECKOUT
from kernel import build as building
from kernel import cache
from kernel.build import KernelSpec, build, kernel_key
from kernel.cache import Kernel, list_entries, prune
from kernel.errors import (
    CacheError,
    ConfigSymbolLost,
    DiskFull,
    KernelBuildError,
    MissingKconfig,
    PatchError,
    SourceError,
)
from kernel.events import Compiled, Event, Finished, Waiting
from kernel.make import objects
from kernel.make.toolchain import toolchain
from kernel.source.source import sources_root, tree_source
from tests.kernel.toy import PATCH, make_git_tree, make_tree, snapshot

FRAGMENT = "CONFIG_LIVEUPDATE=y\nCONFIG_KEXEC_HANDOVER=y\n"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEXEC_STAGES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(building, "require_tools", lambda _: None)


class Toy:
    """A toy tree, a fragment and the kernels that are made of them."""

    def __init__(self, folder: Path) -> None:
        self.tree = make_tree(folder / "tree")
        self.fragment = folder / "base.config"
        self.fragment.write_text(FRAGMENT)
        self.events: list[Event] = []

    def spec(self, localversion: str = "-luo-out", *patches: Path) -> KernelSpec:
        source = tree_source(self.tree)
        return KernelSpec(source, f"toy {localversion}", localversion, (self.fragment,), patches)

    def build(self, localversion: str = "-luo-out", *patches: Path, fresh: bool = False) -> Kernel:
        self.events.clear()
        spec = self.spec(localversion, *patches)
        return build(spec, progress=self.events.append, jobs=2, fresh=fresh)

    def compiled(self) -> list[str]:
        return [event.what for event in self.events if isinstance(event, Compiled)]


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path)


def test_an_entry_holds_what_a_run_needs(toy: Toy) -> None:
    kernel = toy.build()
    assert kernel.release == "7.3.4-luo-out"
    assert len(kernel.build_id) == 40
    for path in (kernel.image, kernel.vmlinux, kernel.system_map, kernel.log, kernel.gen_init_cpio):
        assert path.stat().st_size > 0
    assert (kernel.headers / "include" / "linux" / "toy.h").read_text() == "#define TOY 1\n"
    assert "CONFIG_LIVEUPDATE=y" in kernel.config.read_text()
    assert kernel.meta.compiled_files == 4
    assert kernel.key.encode()[:12] in kernel.image.read_bytes()


def test_a_second_build_is_found(toy: Toy) -> None:
    first = toy.build()
    again = toy.build()
    assert again.key == first.key
    assert next(event for event in toy.events if isinstance(event, Finished)).cached
    assert not toy.compiled()


def test_line_tables_are_another_build_of_the_same_code(toy: Toy, tmp_path: Path) -> None:
    plain, told = toy.build(), build(replace(toy.spec(), line_tables=True))
    assert plain.key != told.key
    assert (plain.release, plain.meta.requests) == (told.release, told.meta.requests)
    assert told.meta.flags == [*plain.meta.flags, "KCFLAGS=-g1"]
    texts, sections = [], []
    for kernel in (plain, told):
        only = ["objcopy", "-O", "binary", "--only-section=.text"]
        subprocess.run([*only, str(kernel.vmlinux), str(tmp_path / "text")], check=True)
        texts.append((tmp_path / "text").read_bytes())
        named = ["readelf", "-SW", str(kernel.vmlinux)]
        sections.append(subprocess.run(named, check=True, capture_output=True).stdout)
    assert texts[0] == texts[1]
    assert [b".debug_line" in text for text in sections] == [False, True]


def test_another_release_compiles_one_file_more(toy: Toy) -> None:
    out = toy.build("-luo-out")
    incoming = toy.build("-luo-in")
    assert toy.compiled() == ["init/version.o"]
    assert incoming.meta.seed == out.key and incoming.meta.seed_relation == "release"
    assert (out.release, incoming.release) == ("7.3.4-luo-out", "7.3.4-luo-in")
    assert out.build_id != incoming.build_id


def test_a_patch_and_its_absence_compile_the_patched_file(toy: Toy, tmp_path: Path) -> None:
    patch = tmp_path / "0001-one-is-two.patch"
    patch.write_text(PATCH)
    patched = toy.build("-luo-out", patch)
    # the seed has the patch and younger objects; what is asked for now has the older file
    plain = toy.build("-luo-out")
    assert sorted(toy.compiled()) == ["init/version.o", "mm/one.o"]
    assert plain.meta.seed == patched.key
    fresh = toy.build("-luo-in", fresh=True)
    assert same_code(plain, fresh) and not same_code(plain, patched)
    assert patched.patches[0].startswith("0001-one-is-two.patch ")


def test_leaving_out_the_last_patch_compiles_its_file_only(toy: Toy, tmp_path: Path) -> None:
    first, second = tmp_path / "0001-one.patch", tmp_path / "0002-three.patch"
    first.write_text(PATCH)
    second.write_text(
        "--- a/mm/three.c\n+++ b/mm/three.c\n@@ -1 +1 @@\n"
        "-int three(void) { return 3; }\n+int three(void) { return 4; }\n"
    )
    toy.build("-luo-out", first, second)
    toy.build("-luo-out", first)
    assert sorted(toy.compiled()) == ["init/version.o", "mm/three.o"]


def test_another_tree_with_the_same_files_compiles_nothing_anew(toy: Toy, tmp_path: Path) -> None:
    toy.build()
    toy.tree = make_git_tree(tmp_path / "elsewhere")
    toy.build()
    assert toy.compiled() == ["init/version.o"]


def same_code(one: Kernel, other: Kernel) -> bool:
    def text(kernel: Kernel) -> bytes:
        copy = kernel.vmlinux.parent / "text"
        command = ["objcopy", "-O", "binary", "-j", ".text", str(kernel.vmlinux), str(copy)]
        subprocess.run(command, check=True)
        return copy.read_bytes()

    return text(one) == text(other)


def test_an_edit_that_keeps_the_old_time_is_compiled(toy: Toy) -> None:
    before = toy.build()
    edited = toy.tree / "mm" / "one.c"
    edited.write_text(edited.read_text().replace("1", "7"))
    os.utime(edited, (1_500_000_000, 1_500_000_000))
    after = toy.build()
    assert "mm/one.o" in toy.compiled() and "mm/two.o" not in toy.compiled()
    assert not same_code(before, after)


def test_the_users_tree_is_never_written(toy: Toy, tmp_path: Path) -> None:
    patch = tmp_path / "a.patch"
    patch.write_text(PATCH)
    toy.tree = make_git_tree(tmp_path / "git")
    (toy.tree / "mm" / "new.c").write_text("int fresh;\n")
    (toy.tree / ".config").write_text("in-tree build\n")
    (toy.tree / "mm" / "one.o").write_text("in-tree build\n")
    before = snapshot(toy.tree)
    toy.build("-luo-out", patch)
    assert "mm/new.o" in toy.compiled()
    assert snapshot(toy.tree) == before


def test_a_compile_error_is_told_with_its_place(toy: Toy) -> None:
    (toy.tree / "mm" / "two.c").write_text("int two(void)\n{\n\treturn undeclared;\n}\n")
    with pytest.raises(KernelBuildError) as caught:
        toy.build()
    error = caught.value
    assert error.exit_status == 125
    assert "mm/two.c:3:16: error: 'undeclared' undeclared" in str(error)
    assert any("return undeclared;" in line for line in error.details)
    assert error.log is not None and "undeclared" in error.log.read_text()
    (toy.tree / "mm" / "two.c").write_text("int two(void)\n{\n\treturn 2;\n}\n")
    toy.build()


def test_the_command_to_repeat_fails_alike(toy: Toy) -> None:
    (toy.tree / "mm" / "two.c").write_text("int two(void) { return undeclared; }\n")
    with pytest.raises(KernelBuildError) as caught:
        toy.build()
    repeated = subprocess.run(
        caught.value.command, shell=True, capture_output=True, text=True, check=False
    )
    assert repeated.returncode != 0 and "undeclared" in repeated.stderr


def test_a_patch_that_does_not_apply_is_named_with_its_hunk(toy: Toy, tmp_path: Path) -> None:
    patch = tmp_path / "0002-wrong.patch"
    patch.write_text(PATCH.replace("return 1;", "return 9;"))
    with pytest.raises(PatchError, match=r"0002-wrong.patch .*hunk 1 of mm/one.c") as caught:
        toy.build("-luo-out", patch)
    assert caught.value.exit_status == 125
    assert not list(sources_root().glob(".partial-*"))


def test_a_lost_symbol_is_named_with_its_fragment(toy: Toy) -> None:
    toy.fragment.write_text(FRAGMENT + "CONFIG_GONE=y\n# CONFIG_FROB is not set\n")
    with pytest.raises(ConfigSymbolLost) as caught:
        toy.build()
    assert caught.value.symbols == ("GONE",)
    assert "CONFIG_GONE=y of base.config" in str(caught.value)
    assert caught.value.details[0].endswith(
        "base.config:3: CONFIG_GONE=y, but this tree has no such symbol"
    )


def test_a_symbol_that_make_drops_leaves_no_folder(toy: Toy) -> None:
    grant = toy.tree / "scripts" / "grant"
    grant.write_text(grant.read_text() + "sed -i s/FROB=y/FROB=m/ $1\n")
    toy.fragment.write_text(FRAGMENT + "CONFIG_FROB=y\n")
    with pytest.raises(ConfigSymbolLost, match=r"FROB=y of base\.config did not survive") as caught:
        toy.build()
    assert caught.value.details[0].endswith("but the .config says 'm'")
    assert not list(sources_root().glob("*/tree/.o-*"))


def test_a_tree_without_live_update_is_a_skip(toy: Toy) -> None:
    (toy.tree / "Kconfig").write_text("config FROB\n")
    with pytest.raises(MissingKconfig) as caught:
        toy.build()
    assert caught.value.symbols == ("KEXEC_HANDOVER", "LIVEUPDATE")
    assert caught.value.exit_status == 4
    assert not sources_root().exists()


def test_no_kernel_tree_is_a_usage_error(tmp_path: Path) -> None:
    for tree in (tmp_path / "absent", tmp_path):
        with pytest.raises(SourceError) as caught:
            tree_source(tree)
        assert caught.value.exit_status == 2 and str(tree) in str(caught.value)


def test_too_small_a_disk_is_told_before(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskFull, match=r"needs about 0\.6 GB .* 0\.0 GB free"):
        toy.build()


def test_a_disk_that_fills_up_is_recognised(toy: Toy) -> None:
    makefile = toy.tree / "Makefile"
    full = "bzImage:\n\t@echo 'ld: final link failed: No space left on device' >&2; false\n"
    makefile.write_text(makefile.read_text().replace("bzImage: $(objects)\n", full))
    with pytest.raises(DiskFull, match="the disk is full"):
        toy.build()


def test_a_copy_that_fills_the_disk(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(DiskFull, match="is full"):
        toy.build()
    assert not list(sources_root().iterdir())


def test_a_cache_that_cannot_be_written(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEXEC_STAGES_CACHE", str(toy.fragment / "cache"))
    with pytest.raises(CacheError, match=r"cannot write to the cache .*base\.config"):
        toy.build()


def test_a_cache_that_make_cannot_build_in(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEXEC_STAGES_CACHE", str(toy.tree.parent / "with space"))
    with pytest.raises(SourceError, match=r"make cannot build below .*with space"):
        toy.build()


def test_a_kernel_with_another_release_is_refused(toy: Toy) -> None:
    makefile = toy.tree / "Makefile"
    makefile.write_text(makefile.read_text().replace("$(LOCALVERSION)\n", "$(LOCALVERSION)+\n"))
    with pytest.raises(KernelBuildError, match=r"7\.3\.4-luo-out\+ instead of 7\.3\.4-luo-out"):
        toy.build()


def test_the_key_depends_on_everything_but_the_label() -> None:
    parts = {
        "source_identity": "a",
        "patches": ["b"],
        "requests": "c",
        "compiler": "d",
        "flags": ["e"],
        "localversion": "f",
    }
    keys = {kernel_key(**parts)}  # type: ignore[arg-type]
    for name, value in parts.items():
        other = ["x"] if isinstance(value, list) else "x"
        keys.add(kernel_key(**{**parts, name: other}))  # type: ignore[arg-type]
    assert len(keys) == len(parts) + 1


def test_the_order_of_patches_and_comments_in_fragments(toy: Toy, tmp_path: Path) -> None:
    key = building._Request.of(toy.spec()).key
    toy.fragment.write_text(f"# why\n{FRAGMENT}\n# FROB is used by nobody\n")
    assert building._Request.of(toy.spec()).key == key
    one, two = tmp_path / "1.patch", tmp_path / "2.patch"
    one.write_text("1")
    two.write_text("2")
    keys = {building._Request.of(toy.spec("-x", *order)).key for order in ((one, two), (two, one))}
    assert len(keys) == 2


@pytest.mark.parametrize("damage", ["image", "header", "meta"])
def test_a_damaged_entry_is_built_again(toy: Toy, damage: str) -> None:
    kernel = toy.build()
    if damage == "image":
        kernel.image.write_bytes(b"x" * kernel.image.stat().st_size)
    elif damage == "header":
        (kernel.headers / "include" / "linux" / "toy.h").write_text("")
    else:
        (kernel.image.parent / cache.META).write_text("{}")
    again = toy.build()
    assert again.key == kernel.key and toy.compiled()
    assert again.image.stat().st_size > 100 and again.build_id == kernel.build_id


def _racer(toy: Toy, queue: multiprocessing.Queue[tuple[bool, bool, str]], start: Barrier) -> None:
    start.wait(timeout=30)
    kernel = toy.build()
    cached = [event.cached for event in toy.events if isinstance(event, Finished)]
    waited = any(isinstance(event, Waiting) for event in toy.events)
    queue.put((cached[0], waited, kernel.build_id))


def test_of_two_that_race_one_builds_and_the_other_waits(toy: Toy) -> None:
    makefile = toy.tree / "Makefile"
    slow = makefile.read_text().replace("\t@gcc $(KCFLAGS)", "\t@sleep 1; gcc $(KCFLAGS)")
    assert "sleep 1" in slow
    makefile.write_text(slow)
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[tuple[bool, bool, str]] = context.Queue()
    # Who came when the first has done would neither build nor wait.
    start = context.Barrier(3)
    racers = [context.Process(target=_racer, args=(toy, queue, start)) for _ in range(3)]
    for racer in racers:
        racer.start()
    results = [queue.get(timeout=600) for _ in racers]
    for racer in racers:
        racer.join(timeout=10)
    assert sorted(cached for cached, _, _ in results) == [False, True, True]
    assert all(waited for cached, waited, _ in results if cached)
    assert len({build_id for _, _, build_id in results}) == 1


SCRIPT = """
import signal, sys
from pathlib import Path
from kernel import build as building
# ignored where the tests run in the background of a shell
signal.signal(signal.SIGINT, signal.default_int_handler)
building.require_tools = lambda chain: None
from kernel.build import KernelSpec, build
from kernel.source.source import tree_source
tree, fragment = Path(sys.argv[1]), Path(sys.argv[2])
try:
    build(KernelSpec(tree_source(tree), "toy", "-luo-out", (fragment,)), jobs=2)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_ended_build_leaves_no_process_and_is_taken_up(toy: Toy, kind: signal.Signals) -> None:
    (toy.tree / "mm" / "two.slow").touch()
    command = [sys.executable, "-c", SCRIPT, str(toy.tree), str(toy.fragment)]
    builder = subprocess.Popen(command, cwd=CHECKOUT, start_new_session=True)
    copies = sources_root()
    try:
        wait_for(lambda: any(copies.glob("*/tree/mm/two.started")))
        records = ("*/tree/.o-*/mm/.one.o.cmd", "*/tree/.o-*/mm/.three.o.cmd")
        wait_for(lambda: all(any(copies.glob(record)) for record in records))
        builder.send_signal(kind)
        builder.wait(timeout=60)
    finally:
        builder.kill()
        builder.wait()
    wait_for(lambda: not processes_below(copies))
    assert not list_entries()
    # the slow file is part of the tree's content, so the copy is made quick instead
    for slow in copies.glob("*/tree/mm/two.slow"):
        slow.unlink()
    toy.build()
    assert sorted(toy.compiled()) == ["init/version.o", "mm/two.o"]


def wait_for(condition: Callable[[], object]) -> None:
    # generous: the machine may be busy with a kernel
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def processes_below(folder: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str((process / "cwd").readlink()).startswith(str(folder)):
                found.append(process.name)
        except OSError:
            continue
    return found


def test_repair_removes_what_may_be_half_written(tmp_path: Path) -> None:
    for name, target, record in (("whole", 10, 20), ("torn", 30, 20)):
        for path, stamp in (
            (tmp_path / f"{name}.o", target),
            (tmp_path / f".{name}.o.cmd", record),
        ):
            path.touch()
            os.utime(path, (stamp, stamp))
    objects.repair(tmp_path)
    assert (tmp_path / "whole.o").exists() and not (tmp_path / "torn.o").exists()


def test_prune_keeps_the_last_used_and_what_is_in_use(toy: Toy) -> None:
    kernels = [toy.build(f"-k{number}") for number in range(3)]
    held, keys = kernels[0], [kernel.key for kernel in kernels]
    del kernels
    assert [entry.key for entry in list_entries()] == keys[::-1]
    assert [entry.in_use for entry in list_entries()] == [False, False, True]
    pruned = prune(keep=1)
    assert [entry.key for entry in pruned.removed] == [keys[1]]
    assert [entry.key for entry in pruned.in_use] == [keys[0]]
    assert pruned.freed > 0 and held.image.exists()
    assert not list(sources_root().glob(f"*/tree/.o-{keys[1]}"))
    del held
    assert len(prune(keep=0).removed) == 2
    assert not list_entries() and not list(sources_root().glob("*/tree"))


def test_prune_wants_to_be_told_what(toy: Toy) -> None:
    toy.build()
    with pytest.raises(ValueError, match="what to keep"):
        prune()
    for nonsense in ({"keep": -1}, {"older_than_days": -0.5}):
        with pytest.raises(SourceError, match="cannot be negative"):
            prune(**nonsense)
    assert len(list_entries()) == 1


def test_prune_by_age(toy: Toy) -> None:
    old, new = toy.build("-old"), toy.build("-new")
    os.utime(old.image.parent / cache.USED, (1_000_000_000, 1_000_000_000))
    old_key, new_key = old.key, new.key
    del old, new
    assert [entry.key for entry in prune(older_than_days=30).removed] == [old_key]
    assert [entry.key for entry in list_entries()] == [new_key]


def test_prune_removes_what_killed_processes_left(toy: Toy) -> None:
    toy.build()
    partial = cache.kernels_root() / (".partial-" + "0" * 32)
    partial.mkdir()
    source = sources_root() / ".partial-0123"
    source.mkdir()
    prune(keep=9)
    assert not partial.exists() and not source.exists()
    assert len(list_entries()) == 1


def test_labels_are_collected(toy: Toy) -> None:
    first = toy.build()
    build(KernelSpec(tree_source(toy.tree), "another", "-luo-out", (toy.fragment,)))
    (entry,) = list_entries()
    assert entry.label == "toy -luo-out, another" and entry.key == first.key


def test_without_ccache_it_works(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "ccache" else which(name))
    assert not toolchain().ccache
    assert toy.build().release == "7.3.4-luo-out"

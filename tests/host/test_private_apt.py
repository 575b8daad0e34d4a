# SPDX-License-Identifier: GPL-2.0-only
"""private-apt with an apt-get that only says what it was asked: sources, pins, refreshing."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from common.paths import CHECKOUT

SCRIPT = CHECKOUT / "common" / "host" / "private-apt"

# Another vendor's archive has a suite of the same name, and a CD comes first.
SOURCES = """\
cdrom:[Debian]/debian|bookworm
http://tools.example/debian|bookworm
http://mirror.example/debian|bookworm
http://mirror.example/debian|bookworm-updates
http://security.example/debian-security|bookworm-security
"""

APT_GET = """\
#!/bin/sh
case "$*" in
'update --print-uris')
	while IFS='|' read -r uri suite; do
		echo "'$uri/dists/$suite/InRelease' name 0 "
		echo "'$uri/dists/$suite/main/binary-amd64/Packages.xz' name 0 "
		echo "'$uri/dists/$suite/contrib/binary-amd64/Packages.xz' name 0 "
	done <"$CONFIGURED"
	exit
	;;
esac
echo "$*" >>"$LOG"
case "$*" in
*' update') exit "${UPDATE_STATUS:-0}" ;;
*' download '*) echo deb >package_1.0_all.deb; exit "${DOWNLOAD_STATUS:-0}" ;;
*' --download-only '*)
	[ -d partial ] && echo deb >library_1.0_all.deb
	exit "${DOWNLOAD_STATUS:-0}"
	;;
esac
"""


class FakeDebian:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.state = folder / "cache" / "apt"
        (folder / "os-release").write_text("ID=debian\nVERSION_CODENAME=bookworm\n")
        self.configure(SOURCES)
        (self.bin / "apt-get").write_text(APT_GET)
        (self.bin / "apt-get").chmod(0o755)
        text = SCRIPT.read_text()
        for path in ("/etc/os-release", "/etc/apt/preferences"):
            assert path in text
            text = text.replace(path, str(folder / Path(path).name))
        (folder / "private-apt").write_text(text)

    def configure(self, sources: str) -> None:
        (self.folder / "configured").write_text(sources)

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        (self.folder / "here").mkdir(exist_ok=True)
        return subprocess.run(
            ["sh", str(self.folder / "private-apt"), *words],
            cwd=self.folder / "here",
            env={
                "PATH": f"{self.bin}:{os.environ['PATH']}",
                "KEXEC_STAGES_CACHE": str(self.folder / "cache"),
                "LOG": str(self.folder / "log"),
                "CONFIGURED": str(self.folder / "configured"),
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def verbs(self) -> list[str]:
        """The last words of every apt-get call."""
        return [line.split()[-1] for line in (self.folder / "log").read_text().splitlines()]

    def sources(self, name: str) -> list[str]:
        lines = (self.state / name / "sources.list").read_text().splitlines()
        assert all(line.startswith("deb [signed-by=/usr/share/keyrings/debian-") for line in lines)
        return [line.partition("] ")[2] for line in lines]


@pytest.fixture
def debian(tmp_path: Path) -> FakeDebian:
    return FakeDebian(tmp_path)


def test_download_sees_one_suite_of_the_machines_own_mirror(debian: FakeDebian) -> None:
    done = debian.run("trixie-backports", "download", "package")
    assert done.returncode == 0, done.stderr
    expected = ["http://mirror.example/debian trixie-backports main"]
    assert debian.sources("trixie-backports-download") == expected
    assert (debian.folder / "here" / "package_1.0_all.deb").read_text() == "deb\n"
    assert not list((debian.state / "trixie-backports-download").glob("download.*"))


def test_a_download_that_fails_leaves_no_package(debian: FakeDebian) -> None:
    done = debian.run("trixie-backports", "download", "package", DOWNLOAD_STATUS="100")
    assert done.returncode == 3
    assert "cannot download package of trixie-backports" in done.stderr
    assert not list((debian.folder / "here").iterdir())


def test_collect_takes_all_that_is_needed_of_another_release(debian: FakeDebian) -> None:
    (debian.folder / "preferences").write_text("Package: x\nPin: version 1\nPin-Priority: 1\n")
    done = debian.run("trixie-backports", "collect", "src:qemu", "qemu-system-x86")
    assert done.returncode == 0, done.stderr
    assert debian.sources("trixie-backports-collect") == [
        "http://mirror.example/debian trixie-backports main",
        "http://mirror.example/debian trixie main",
        "http://mirror.example/debian trixie-updates main",
        "http://security.example/debian-security trixie-security main",
    ]
    call = (debian.folder / "log").read_text().splitlines()[-1]
    status = debian.state / "trixie-backports-collect" / "status"
    assert f"Dir::State::status={status}" in call and status.read_text() == ""
    assert call.endswith(" install qemu-system-x86") and "--download-only" in call
    pins = (debian.state / "trixie-backports-collect" / "preferences").read_text()
    assert pins.startswith("\nPackage: src:qemu:any\n")  # the machine's own say nothing of it
    assert (debian.folder / "here" / "library_1.0_all.deb").exists()


def test_a_collection_that_fails_leaves_no_package(debian: FakeDebian) -> None:
    done = debian.run("trixie-backports", "collect", "qemu", DOWNLOAD_STATUS="100")
    assert done.returncode == 3
    assert "cannot download qemu of trixie-backports" in done.stderr
    assert not list((debian.folder / "here").iterdir())


def test_install_sees_the_release_and_its_updates(debian: FakeDebian) -> None:
    done = debian.run("bookworm-backports", "install", "src:qemu", "src:seabios", "qemu", "flex")
    assert done.returncode == 0, done.stderr
    assert debian.sources("bookworm-backports-install") == [
        "http://mirror.example/debian bookworm-backports main",
        "http://mirror.example/debian bookworm main",
        "http://mirror.example/debian bookworm-updates main",
        "http://security.example/debian-security bookworm-security main",
    ]
    call = (debian.folder / "log").read_text().splitlines()[-1]
    assert call.endswith(" install qemu flex") and "--no-remove" in call
    pins = (debian.state / "bookworm-backports-install" / "preferences").read_text().split("\n")
    assert "Package: src:qemu:any src:seabios:any" in pins
    assert "Pin: release n=bookworm-backports" in pins


def test_the_machines_own_pins_stay(debian: FakeDebian) -> None:
    (debian.folder / "preferences").write_text("Package: x\nPin: version 1\nPin-Priority: 1\n")
    assert debian.run("bookworm-backports", "install", "src:qemu", "qemu").returncode == 0
    pins = (debian.state / "bookworm-backports-install" / "preferences").read_text()
    assert pins.startswith("Package: x\nPin: version 1\nPin-Priority: 1\n\nPackage: src:qemu:any\n")


def test_a_machine_without_updates_is_known_by_its_mirrors_name(debian: FakeDebian) -> None:
    debian.configure(
        "http://tools.example/stable|bookworm\nhttp://mirror.example/debian|bookworm\n"
    )
    assert debian.run("trixie-backports", "download", "package").returncode == 0
    expected = ["http://mirror.example/debian trixie-backports main"]
    assert debian.sources("trixie-backports-download") == expected


def test_no_mirror_is_said(debian: FakeDebian) -> None:
    debian.configure("cdrom:[Debian]/debian|bookworm\n")
    done = debian.run("trixie-backports", "download", "package")
    assert done.returncode == 3
    assert 'add "deb MIRROR bookworm main" to /etc/apt/sources.list' in done.stderr


def test_another_release_is_not_installed_from(debian: FakeDebian) -> None:
    done = debian.run("trixie-backports", "install", "src:qemu", "qemu")
    assert done.returncode == 3
    assert "this machine is bookworm" in done.stderr
    assert not (debian.folder / "log").exists()


def test_lists_are_fetched_when_missing_old_or_of_other_sources(debian: FakeDebian) -> None:
    download = ("trixie-backports", "download", "package")
    debian.run(*download)
    debian.run(*download)
    assert debian.verbs == ["update", "package", "package"]
    stamp = debian.state / "trixie-backports-download" / "updated"
    long_ago = time.time() - 2 * 86400
    os.utime(stamp, (long_ago, long_ago))
    debian.run(*download)
    assert debian.verbs[3:] == ["update", "package"]
    debian.configure(SOURCES.replace("mirror.example", "other.example"))
    debian.run(*download)
    assert debian.verbs[5:] == ["update", "package"]


def test_lists_that_cannot_be_fetched_end_it(debian: FakeDebian) -> None:
    done = debian.run("trixie-backports", "download", "package", UPDATE_STATUS="100")
    assert done.returncode == 3
    assert "cannot fetch the package lists of trixie-backports" in done.stderr
    assert debian.verbs == ["update"]
    assert debian.run("trixie-backports", "download", "package").returncode == 0
    assert debian.verbs[1:] == ["update", "package"]


def test_a_cache_named_relative_to_here(debian: FakeDebian) -> None:
    done = debian.run("trixie-backports", "download", "package", KEXEC_STAGES_CACHE="own")
    assert done.returncode == 0, done.stderr
    assert (debian.folder / "here" / "own" / "apt" / "trixie-backports-download").is_dir()


@pytest.mark.parametrize(
    "words", [[], ["bookworm-backports"], ["bookworm-backports", "remove", "x"], ["x", "install"]]
)
def test_usage(debian: FakeDebian, words: list[str]) -> None:
    done = debian.run(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("private-apt: usage:")


def test_not_debian(debian: FakeDebian) -> None:
    (debian.bin / "apt-get").unlink()
    (debian.bin / "sh").symlink_to(shutil.which("sh") or "")
    done = debian.run("trixie-backports", "download", "package", PATH=str(debian.bin))
    assert done.returncode == 3 and "no apt-get here" in done.stderr

# SPDX-License-Identifier: GPL-2.0-only
"""The launcher on machines that are not there: other systems, empty ones, half-made ones.

A copy of the launcher runs with a PATH of harmless programs and of fakes (apt-get, sudo, id,
python3) that log what they are asked for, and with its system files replaced by ours.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from common.paths import CHECKOUT

HARMLESS = """
awk cat chown cmp cp cut dirname env find flock grep head mkdir mktemp mv paste printf readlink rm
sed setpriv sh sha256sum sleep sort tail touch tr uniq
"""

PACKAGES = """\
python3       base     stable               command:python3    3.11  Python            why
python3-venv  base     stable               module:ensurepip   -     Python's_venv     why
frob          machine  stable               command:frob-tool  -     the_frobnicator   why
qux           machine  src:qux,src:quxlib   command:qux-tool   10.0  Qux               why
"""

ELSEWHERE = """\
# a comment
package  fedora             arch  opensuse  ubuntu
frob     frob-tools,frobd   frob  =         =
qux      =                  frob  libqux    =
"""

PYPROJECT = """\
[project]
dependencies = ["light==1"]
[project.optional-dependencies]
machine = ["heavy==2"]
[tool.kexec-stages]
pins = ["setuptools==3"]
"""

MAIN = """\
import json, os, sys
from pathlib import Path
import common
where = str(Path(common.__file__).parent)
cache = os.environ["KEXEC_STAGES_CACHE"]
print(json.dumps({"arguments": sys.argv[1:], "cwd": os.getcwd(), "common": where, "cache": cache}))
sys.exit(int(sys.argv[2]) if sys.argv[1:2] == ["exit"] else 0)
"""

# A python3 whose environments are made at once and whose pip only says what it was asked for.
PYTHON = f"""\
#!/bin/sh
case "$*" in
*_base_executable*) echo "$0" ;;
'-m venv '*) echo "venv" >>"$LOG"; mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
'-m pip '*) echo "pip $*" >>"$LOG"; sleep "${{PIP_SECONDS:-0}}"; exit "${{PIP_STATUS:-0}}" ;;
*) exec {sys.executable} "$@" ;;
esac
"""

APT_GET = """\
#!/bin/sh
echo "apt-get $*" >>"$LOG"
[ -z "${APT_LEAVES_A_DAEMON:-}" ] || (sleep 5 >/dev/null 2>&1 &)
for word; do
	case $word in
	python3) cp "$STASH/python3" "$BIN" ;;
	frob | qux) [ -n "${APT_INSTALLS_NOTHING:-}" ] || cp "$STASH/tool" "$BIN/$word-tool" ;;
	esac
done
echo 'E: the words of apt'
exit "${APT_STATUS:-0}"
"""

OS_RELEASES = {
    "bookworm": 'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n',
    "trixie": 'ID=debian\nVERSION_ID="13"\nVERSION_CODENAME=trixie\n',
    "forky": "ID=debian\nVERSION_CODENAME=forky\n",
    "bullseye": 'ID=debian\nVERSION_ID="11"\nVERSION_CODENAME=bullseye\n',
    "fedora": "ID=fedora\nVERSION_ID=43\n",
    "suse": 'ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n',
    "arch": "ID=arch\n",
    "ubuntu": 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="26.04"\nVERSION_CODENAME=resolute\n',
}


class FakeMachine:
    """A machine with the programs in `bin` and no others; what was asked of them is in `log`."""

    def __init__(self, folder: Path, *, system: str = "trixie", python: bool = True) -> None:
        self.folder = folder
        self.checkout = folder / "checkout"
        self.bin = folder / "bin"
        self.stash = folder / "stash"
        self.log_file = folder / "log"
        self.cache = folder / "cache"
        for made in (self.checkout / "common" / "host", self.bin, self.stash, folder / "lists"):
            made.mkdir(parents=True)
        (folder / "os-release").write_text(OS_RELEASES[system])
        (folder / "lists" / "mirror_Release").touch()
        for name in HARMLESS.split():
            found = shutil.which(name)
            assert found, name
            (self.bin / name).symlink_to(found)
        self.program("python3", PYTHON, stash=True)
        self.program("tool", "#!/bin/sh\necho tool 10.0.2\n", stash=True)
        self.program("apt-get", APT_GET)
        self.program("id", "#!/bin/sh\necho 0\n")
        self.program("uname", "#!/bin/sh\necho x86_64\n")
        if python:
            self.program("python3", PYTHON)
        self._copy("kexec-stages", "/etc/os-release")
        self._copy(
            "common/host/make-ready", "/etc/os-release", "/usr/bin/python3", "/var/lib/apt/lists"
        )
        (self.checkout / "common" / "host" / "debian-packages.txt").write_text(PACKAGES)
        (self.checkout / "common" / "host" / "packages-elsewhere.txt").write_text(ELSEWHERE)
        (self.checkout / "pyproject.toml").write_text(PYPROJECT)
        (self.checkout / "common" / "__init__.py").touch()
        (self.checkout / "common" / "__main__.py").write_text(MAIN)
        self.program("private-apt", '#!/bin/sh\nexec apt-get private "$@"\n')
        (self.bin / "private-apt").rename(self.checkout / "common" / "host" / "private-apt")

    def _copy(self, name: str, *system_paths: str) -> None:
        text = (CHECKOUT / name).read_text()
        ours = {
            "/etc/os-release": str(self.folder / "os-release"),
            "/usr/bin/python3": "python3",
            "/var/lib/apt/lists": str(self.folder / "lists"),
        }
        for path in system_paths:
            assert path in text
            text = text.replace(path, ours[path])
        (self.checkout / name).write_text(text)
        (self.checkout / name).chmod(0o755)

    def program(self, name: str, text: str, *, stash: bool = False) -> None:
        path = (self.stash if stash else self.bin) / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def has_all_packages(self) -> None:
        for name in ("frob-tool", "qux-tool"):
            shutil.copy(self.stash / "tool", self.bin / name)

    def environment(self, **more: str) -> dict[str, str]:
        return {
            "PATH": str(self.bin),
            "HOME": str(self.folder / "home"),
            "KEXEC_STAGES_CACHE": str(self.cache),
            "LOG": str(self.log_file),
            "BIN": str(self.bin),
            "STASH": str(self.stash),
            **more,
        }

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.checkout / "kexec-stages"), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=self.environment(**environment),
            start_new_session=True,
        )

    def run(
        self, *arguments: str, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.checkout / "kexec-stages"), *arguments],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=cwd,
            env=self.environment(**environment),
            timeout=60,
            check=False,
        )

    @property
    def log(self) -> list[str]:
        return self.log_file.read_text().splitlines() if self.log_file.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path)


def test_empty_debian_13_is_made_ready_by_plain_apt(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, python=False)
    done = machine.run("demo")
    assert done.returncode == 0, done.stderr
    said = done.stderr
    # python3-venv's module comes with the fake python3, but was not here when it was looked for
    assert "missing here: python3 python3-venv frob qux" in said
    assert "installing: apt-get install --no-install-recommends python3 python3-venv" in said
    assert "light==1" in said and "heavy==2" in said
    install, *rest = machine.log
    assert install.startswith("apt-get -q -y --no-install-recommends --no-remove ")
    assert install.endswith(" install python3 python3-venv frob qux")
    assert rest[0] == "venv"
    assert ["light==1" in line for line in rest[1:]] == [True, False, False]
    assert rest[2].endswith(" setuptools")
    assert rest[3].endswith(" heavy==2") and "--no-build-isolation" in rest[3]


def test_debian_12_takes_what_is_too_old_from_backports(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, system="bookworm")
    done = machine.run("demo")
    assert done.returncode == 0, done.stderr
    wanted = "bookworm-backports install src:qux src:quxlib frob qux"
    assert machine.log[0] == f"apt-get private {wanted}"
    assert f"common/host/private-apt {wanted}" in done.stderr


def test_debian_12_needs_no_backports_for_the_rest(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, system="bookworm")
    shutil.copy(machine.stash / "tool", machine.bin / "qux-tool")
    assert machine.run("demo").returncode == 0
    assert machine.log[0].startswith("apt-get -q") and machine.log[0].endswith(" install frob")


def test_a_debian_without_a_number_is_a_later_one(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, system="forky")
    assert machine.run("demo").returncode == 0
    assert machine.log[0].endswith(" install frob qux")


def test_lists_are_fetched_when_missing_or_old(machine: FakeMachine) -> None:
    (machine.folder / "lists" / "mirror_Release").unlink()
    assert machine.run("demo").returncode == 0
    assert machine.log[0].endswith(" update")
    (machine.folder / "lists" / "mirror_Release").touch()
    long_ago = time.time() - 3 * 86400
    os.utime(machine.folder / "lists", (long_ago, long_ago))
    (machine.bin / "frob-tool").unlink()
    machine.log_file.unlink()
    assert machine.run("demo").returncode == 0
    assert [line.split()[-1] for line in machine.log] == ["update", "frob"]


def test_a_second_start_asks_nobody(machine: FakeMachine) -> None:
    machine.has_all_packages()
    assert machine.run("demo").returncode == 0
    machine.log_file.unlink()
    done = machine.run("demo", "--x", "a b")
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout)["arguments"] == ["demo", "--x", "a b"]
    assert machine.log == []


def test_folders_of_the_current_directory_are_not_imported(
    machine: FakeMachine, tmp_path: Path
) -> None:
    (tmp_path / "tree" / "common").mkdir(parents=True)
    (tmp_path / "tree" / "common" / "__init__.py").write_text("raise SystemExit(99)")
    done = machine.run("list", cwd=tmp_path / "tree")
    told = json.loads(done.stdout)
    assert told["cwd"] == str(tmp_path / "tree")
    assert told["common"] == str(machine.checkout / "common")


def test_a_cache_named_relative_to_here(machine: FakeMachine, tmp_path: Path) -> None:
    done = machine.run("list", cwd=tmp_path, KEXEC_STAGES_CACHE="own")
    assert json.loads(done.stdout)["cache"] == str(tmp_path / "own")
    assert (tmp_path / "own" / "make-ready.lock").exists()


def test_runs_through_a_link(machine: FakeMachine, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(machine.checkout / "kexec-stages")
    done = subprocess.run(
        [str(tmp_path / "link"), "list"],
        env=machine.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(done.stdout)["common"] == str(machine.checkout / "common")


@pytest.mark.parametrize("status", [0, 1, 2, 3, 4, 5, 6, 125])
def test_the_exit_status_is_the_commands(machine: FakeMachine, status: int) -> None:
    assert machine.run("exit", str(status)).returncode == status


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--help",
        "--version",
        "list",
        "judge latest",
        "report demo",
        "doctor",
        "kernel list",
        "kernel prune --all",
        "run 1 --help",
        "demo -h",
    ],
)
def test_commands_that_start_nothing_need_python_only(machine: FakeMachine, words: str) -> None:
    done = machine.run(*words.split())
    assert done.returncode == 0, done.stderr
    assert not any("apt-get" in line or "heavy" in line for line in machine.log)


@pytest.mark.parametrize(
    "words",
    ["demo", "soak", "test -x", "run 1", "gate --until 2", "shell 1", "kernel build", "-v run 1"],
)
def test_commands_that_start_machines_need_all(machine: FakeMachine, words: str) -> None:
    done = machine.run(*words.split(), KEXEC_STAGES_NO_INSTALL="1")
    assert done.returncode == 3
    assert "missing here: frob qux" in done.stderr
    assert machine.log == []


def test_no_install_names_the_command_and_does_nothing(machine: FakeMachine) -> None:
    done = machine.run("demo", KEXEC_STAGES_NO_INSTALL="1")
    assert done.returncode == 3
    assert "by hand, as root: apt-get install --no-install-recommends frob qux" in done.stderr
    machine.has_all_packages()
    done = machine.run("demo", KEXEC_STAGES_NO_INSTALL="1")
    assert done.returncode == 3
    assert "light==1" in done.stderr
    assert machine.log == []


@pytest.mark.parametrize("system", ["ubuntu", "bullseye"])
def test_elsewhere_it_names_what_to_install(tmp_path: Path, system: str) -> None:
    machine = FakeMachine(tmp_path, system=system)
    done = machine.run("demo")
    assert done.returncode == 3
    assert "not Debian 12 or later" in done.stderr
    assert "    the frobnicator (frob)\n    Qux 10.0 or later (qux)\n" in done.stderr
    assert machine.log == []
    machine.has_all_packages()
    assert machine.run("demo", KEXEC_STAGES_SOURCE="/linux").returncode == 0


def test_elsewhere_a_newer_python_of_another_name_will_do(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, system="ubuntu")
    machine.program("python3", "#!/bin/sh\nexit 0\n")  # says nothing, as one before 3.11 does
    assert "Python 3.11 or later" in machine.run("list").stderr
    machine.program("python3.12", PYTHON)
    assert machine.run("list").returncode == 0


def test_another_processor_is_a_skip(machine: FakeMachine) -> None:
    machine.program("uname", "#!/bin/sh\necho aarch64\n")
    done = machine.run("demo")
    assert done.returncode == 4
    assert "needs an x86-64 machine; this one is aarch64" in done.stderr
    assert machine.run("list").returncode == 0


def test_not_root_and_no_sudo(machine: FakeMachine) -> None:
    machine.program("id", "#!/bin/sh\necho 1000\n")
    done = machine.run("demo")
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert "not root, and there is no sudo" in last
    assert last.endswith("as root: apt-get install --no-install-recommends frob qux")
    assert machine.log == []


def test_not_root_but_sudo(machine: FakeMachine) -> None:
    machine.program("id", "#!/bin/sh\necho 1000\n")
    machine.program("sudo", '#!/bin/sh\necho "sudo $1" >>"$LOG"; [ "$1" = -v ] || exec "$@"\n')
    done = machine.run("demo")
    assert done.returncode == 0, done.stderr
    assert "installing: sudo apt-get install" in done.stderr
    assert machine.log[:2] == ["sudo -v", "sudo env"]
    assert machine.log[2].endswith(" install frob qux")


def test_sudo_that_refuses(machine: FakeMachine) -> None:
    machine.program("id", "#!/bin/sh\necho 1000\n")
    machine.program("sudo", "#!/bin/sh\nexit 1\n")
    done = machine.run("demo")
    assert done.returncode == 3
    assert "by hand, as root: apt-get install" in done.stderr
    assert machine.log == []


def test_apt_that_fails_is_quoted(machine: FakeMachine) -> None:
    done = machine.run("demo", APT_STATUS="100")
    assert done.returncode == 3
    assert "E: the words of apt" in done.stderr
    assert "exit status 100: env DEBIAN_FRONTEND=noninteractive apt-get" in done.stderr
    assert str(machine.cache / "make-ready.log") in done.stderr
    assert machine.run("demo").returncode == 0


def test_installed_and_yet_not_here(machine: FakeMachine) -> None:
    done = machine.run("demo", APT_INSTALLS_NOTHING="1")
    assert done.returncode == 3
    assert "after the installation still missing or too old" in done.stderr
    assert "frob\tmissing\t-" in done.stderr


def test_too_old_is_replaced_and_newer_left_alone(machine: FakeMachine) -> None:
    machine.has_all_packages()
    machine.program("qux-tool", "#!/bin/sh\necho qux version 9.12.1, of 2025-10-11\n")
    assert machine.run("demo").returncode == 0
    assert machine.log[0].endswith(" install qux")
    machine.program("qux-tool", "#!/bin/sh\necho qux version 11.0.50\n")
    machine.log_file.unlink()
    shutil.rmtree(machine.cache / "ready")
    assert machine.run("demo").returncode == 0
    assert machine.log == []


def test_what_vanishes_is_missed(machine: FakeMachine) -> None:
    machine.has_all_packages()
    assert machine.run("demo").returncode == 0
    (machine.bin / "frob-tool").unlink()
    done = machine.run("demo", KEXEC_STAGES_NO_INSTALL="1")
    assert done.returncode == 3 and "missing here: frob" in done.stderr
    assert machine.run("list").returncode == 0


def test_other_pins_are_another_environment_and_other_settings_are_not(
    machine: FakeMachine,
) -> None:
    assert machine.run("list").returncode == 0
    pyproject = machine.checkout / "pyproject.toml"
    pyproject.write_text(PYPROJECT + "[tool.ruff]\nline-length = 100\n")
    assert machine.run("list").returncode == 0
    assert machine.log.count("venv") == 1
    pyproject.write_text(PYPROJECT.replace("light==1", "light==2"))
    assert machine.run("list").returncode == 0
    assert machine.log.count("venv") == 2
    assert len(list(machine.cache.glob("venv-*"))) == 2


def test_pip_that_fails_leaves_nothing_in_use(machine: FakeMachine) -> None:
    machine.has_all_packages()
    done = machine.run("demo", PIP_STATUS="1")
    assert done.returncode == 3 and "-m pip install" in done.stderr
    assert machine.run("demo").returncode == 0
    assert machine.log.count("venv") == 2


def test_two_launchers_make_one_environment(machine: FakeMachine) -> None:
    machine.has_all_packages()
    both = [machine.start("demo", PIP_SECONDS="0.3") for _ in range(2)]
    said = [launcher.communicate(timeout=60)[1] for launcher in both]
    assert [launcher.returncode for launcher in both] == [0, 0], said
    assert machine.log.count("venv") == 1
    assert sum("waiting for it" in words for words in said) == 1


def test_a_killed_launcher_leaves_nothing_half_ready(machine: FakeMachine) -> None:
    machine.has_all_packages()
    launcher = machine.start("demo", PIP_SECONDS="2")
    deadline = time.monotonic() + 30
    while not any(line.startswith("pip") for line in machine.log):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    make_ready = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    for pid in (launcher.pid, *map(int, make_ready)):
        os.kill(pid, signal.SIGKILL)
    launcher.wait()
    # pip is still at work: the next start waits for it, and then begins anew
    done = machine.run("demo")
    assert done.returncode == 0, done.stderr
    assert "waiting for it" in done.stderr
    assert machine.log.count("venv") == 2


def test_a_daemon_that_apt_starts_does_not_hold_the_lock(machine: FakeMachine) -> None:
    assert machine.run("demo", APT_LEAVES_A_DAEMON="1").returncode == 0
    with (machine.cache / "make-ready.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_start_that_fails_does_not_hold_its_callers_pipe(machine: FakeMachine) -> None:
    begin = time.monotonic()
    assert machine.run("demo", APT_STATUS="100").returncode == 3
    assert time.monotonic() - begin < 8  # the ticker sleeps for 10 s


def test_doctor_says_what_it_can_where_python_cannot_be_had(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, python=False)
    done = machine.run("doctor", KEXEC_STAGES_NO_INSTALL="1")
    assert done.returncode == 3
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["frob", "missing", "-", "apt-get", "install", "frob"] in rows


def test_the_real_list_is_well_formed() -> None:
    done = subprocess.run(
        ["sh", str(CHECKOUT / "common" / "host" / "make-ready"), "look"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(rows) > 15
    assert {len(row) for row in rows} == {10}
    assert {row[1] for row in rows} == {"base", "machine", "arm64"}
    assert all(row[5] == "stable" or row[5].startswith("src:") for row in rows)


def test_every_requirement_is_pinned() -> None:
    with (CHECKOUT / "pyproject.toml").open("rb") as file:
        data = tomllib.load(file)
    groups = [
        data["project"]["dependencies"],
        data["project"]["optional-dependencies"]["machine"],
        data["tool"]["kexec-stages"]["pins"],
    ]
    names = [line.partition("==")[0] for group in groups for line in group]
    assert all("==" in line for group in groups for line in group)
    assert len({name.lower().replace("_", "-") for name in names}) == len(names)


SOURCE_LACKS = "the kernel source, which is packaged only by Debian: give --tree DIR or"


@pytest.mark.parametrize(
    ("system", "command"),
    [
        ("fedora", "dnf install frob-tools frobd qux"),
        ("arch", "pacman -S --needed frob"),
        ("suse", "zypper install frob libqux"),
        ("ubuntu", "apt-get install frob qux"),
    ],
)
def test_elsewhere_all_that_is_missing_is_said_at_once(
    tmp_path: Path, system: str, command: str
) -> None:
    machine = FakeMachine(tmp_path, system=system)
    (machine.bin / "apt-get").unlink()
    began = time.monotonic()
    done = machine.run("demo")
    assert done.returncode == 3 and time.monotonic() - began < 2
    assert "the frobnicator (frob)" in done.stderr and SOURCE_LACKS in done.stderr
    assert f"as far as we know: {command}\n" in done.stderr
    assert machine.log == []


def test_elsewhere_the_source_is_missed_before_pip(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, system="fedora")
    (machine.bin / "apt-get").unlink()
    machine.has_all_packages()
    for words in ("demo", "test", "run 1 --no-controls", "soak --stage 2"):
        done = machine.run(*words.split())
        assert done.returncode == 3 and SOURCE_LACKS in done.stderr, words
    assert machine.log == []


@pytest.mark.parametrize(
    ("words", "source"),
    [
        ("demo --tree /linux", ""),
        ("gate --source=linux.tar.xz", ""),
        ("run 1 --image bzImage", ""),
        ("run 1 --outgoing-tree a --incoming-tree b", ""),
        ("matrix --kernel tree", ""),
        ("test", "/linux"),
        ("list", ""),
    ],
)
def test_elsewhere_with_a_source_all_goes_on(tmp_path: Path, words: str, source: str) -> None:
    machine = FakeMachine(tmp_path, system="fedora")
    (machine.bin / "apt-get").unlink()
    machine.has_all_packages()
    done = machine.run(*words.split(), KEXEC_STAGES_SOURCE=source)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["arguments"] == words.split()


def test_elsewhere_a_source_in_the_cache_will_do(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, system="fedora")
    machine.has_all_packages()
    record = machine.cache / "sources" / "abc" / "source.json"
    record.parent.mkdir(parents=True)
    record.write_text('{"commit": "of a tree"}')
    assert machine.run("demo").returncode == 3
    record.write_text(json.dumps({"package": "linux-source-7.3"}))
    assert machine.run("demo").returncode == 0

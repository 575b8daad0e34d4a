# SPDX-License-Identifier: GPL-2.0-only
"""A tree that answers to make as a kernel's does, and builds in a second."""

from __future__ import annotations

import os
import subprocess
import textwrap
from pathlib import Path

MAKEFILE = r"""
VERSION = 7
PATCHLEVEL = 3
SUBLEVEL = 4
EXTRAVERSION =

sources := $(sort $(wildcard mm/*.c))
objects := $(patsubst %.c,$(O)/%.o,$(sources)) $(O)/init/version.o
release := $(VERSION).$(PATCHLEVEL).$(SUBLEVEL)$(LOCALVERSION)

tinyconfig:
	@mkdir -p $(O)
	@: > $(O)/.config

olddefconfig:
	@sh scripts/grant $(O)/.config

$(O)/%.o: %.c include/uapi/linux/toy.h
	@mkdir -p $(@D)
	@echo '  CC      $*.o'
	@if [ -e $*.slow ]; then : > $*.started; sleep 60; fi
	@gcc $(KCFLAGS) -fPIC -Iinclude/uapi -c -o $@ $<
	@echo 'cmd := gcc' > $(@D)/.$(@F).cmd

$(O)/init/version.o: FORCE
	@mkdir -p $(@D) $(O)/include/config
	@echo $(release) > $(O)/include/config/kernel.release
	@echo '  CC      init/version.o'
	@echo 'const char release[] = "$(release) ($(KBUILD_BUILD_HOST))";' | gcc -fPIC -xc -c -o $@ -

bzImage: $(objects)
	@echo '  LD      vmlinux'
	@gcc -shared -nostdlib -Wl,--build-id=sha1 -o $(O)/vmlinux $(objects)
	@mkdir -p $(O)/arch/x86/boot $(O)/usr
	@cp $(O)/vmlinux $(O)/arch/x86/boot/bzImage
	@nm $(O)/vmlinux > $(O)/System.map
	@echo true > $(O)/usr/gen_init_cpio

headers:
	@mkdir -p $(O)/usr/include/linux
	@cp include/uapi/linux/toy.h $(O)/usr/include/linux/toy.h

FORCE:
.PHONY: FORCE tinyconfig olddefconfig bzImage headers
"""

# what olddefconfig does: symbols that no Kconfig file defines are dropped
GRANT = r"""
while read -r line; do
	name=$(printf %s "$line" | sed -n 's/^\(# \)\{0,1\}CONFIG_\([A-Z0-9_]*\).*/\2/p')
	grep -qx "config $name" Kconfig && printf '%s\n' "$line"
done < "$1" > "$1.new"
mv "$1.new" "$1"
"""

MERGE = r"""
shift; shift; shift
cat "$2" >> "$1"
"""

KCONFIG = """\
config LIVEUPDATE
	bool "toy"
config KEXEC_HANDOVER
	bool "toy"
config FROB
	bool "toy"
"""


def make_tree(tree: Path) -> Path:
    """A toy kernel tree with three files to compile."""
    files = {
        "Makefile": MAKEFILE,
        "Kbuild": "",
        "Kconfig": KCONFIG,
        "arch/x86/Makefile": "",
        "scripts/grant": GRANT,
        "scripts/kconfig/merge_config.sh": MERGE,
        "include/uapi/linux/toy.h": "#define TOY 1\n",
        "mm/one.c": "int one(void)\n{\n\treturn 1;\n}\n",
        "mm/two.c": "#include <linux/toy.h>\nint two(void) { return TOY + 1; }\n",
        "mm/three.c": "int three(void) { return 3; }\n",
    }
    for name, text in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        # older than any object, as in a tree that was unpacked or checked out before
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return tree


def git(tree: Path, *arguments: str) -> str:
    """What git prints; as somebody, and without the user's configuration."""
    who = {f"GIT_{role}_{what}": "toy" for role in ("AUTHOR", "COMMITTER") for what in ("NAME",)}
    who |= {f"GIT_{role}_EMAIL": "toy@example.org" for role in ("AUTHOR", "COMMITTER")}
    env = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, **who}
    command = ["git", *arguments]
    return subprocess.run(
        command, cwd=tree, env=env, check=True, capture_output=True, text=True
    ).stdout


def make_git_tree(tree: Path) -> Path:
    """The toy tree as a git tree with one commit."""
    make_tree(tree)
    (tree / ".gitignore").write_text("*.o\n.config\n")
    git(tree, "init", "-q")
    git(tree, "add", "-A")
    git(tree, "commit", "-q", "-m", "toy")
    return tree


PATCH = textwrap.dedent(
    """\
    Subject: one is two

    --- a/mm/one.c
    +++ b/mm/one.c
    @@ -1,4 +1,4 @@
     int one(void)
     {
    -\treturn 1;
    +\treturn 2;
     }
    """
)


def snapshot(tree: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """All that could tell that somebody wrote to the tree: times, mode, content of each file."""
    seen: dict[str, tuple[int, int, int, bytes]] = {}
    for path in sorted(tree.rglob("*")):
        info = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        seen[str(path)] = (info.st_mtime_ns, info.st_ctime_ns, info.st_mode, content)
    return seen

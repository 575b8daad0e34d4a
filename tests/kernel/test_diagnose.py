# SPDX-License-Identifier: GPL-2.0-only
"""What a failed build's output is taken to say; the outputs were recorded."""

from __future__ import annotations

from kernel.make.diagnose import diagnose, from_source

GCC = """\
  CC      mm/memblock.o
  CC      mm/memfd_luo.o
In file included from ../include/linux/kho/abi/memfd.h:15,
                 from ../mm/memfd_luo.c:71:
../mm/memfd_luo.c: In function 'memfd_luo_preserve':
../mm/memfd_luo.c:230:9: error: 'undeclared' undeclared (first use in this function)
  230 |         undeclared = 1;
      |         ^~~~~~~~~~
../mm/memfd_luo.c:230:9: note: each undeclared identifier is reported only once
../mm/memfd_luo.c:241:1: error: control reaches end of non-void function [-Werror=return-type]
  241 | }
      | ^
  CC      mm/shmem.o
make[4]: *** [../scripts/Makefile.build:289: mm/memfd_luo.o] Error 1
make[3]: *** [../scripts/Makefile.build:548: mm] Error 2
make[2]: *** [/tree/Makefile:2124: .] Error 2
make: *** [Makefile:248: __sub-make] Error 2
"""

LD = """\
  LD      .tmp_vmlinux1
ld: vmlinux.o: in function `memfd_luo_init':
memfd_luo.c:(.init.text+0x1c): undefined reference to `liveupdate_register'
make[2]: *** [../scripts/Makefile.vmlinux:34: vmlinux] Error 1
"""

FULL = """\
  CC      mm/memblock.o
../mm/memblock.c:2310: fatal error: error writing to /cache/.tmp/ccR2dX.s: No space left on device
 2310 | }
compilation terminated.
make[3]: *** [../scripts/Makefile.build:289: mm/memblock.o] Error 1
"""

KILLED = """\
  CC      arch/x86/kvm/x86.o
gcc: fatal error: Killed signal terminated program cc1
compilation terminated.
make[4]: *** [../scripts/Makefile.build:289: arch/x86/kvm/x86.o] Error 1
"""

NO_LZ4 = """\
  LZ4     arch/x86/boot/compressed/vmlinux.bin.lz4
/bin/sh: 1: lz4: not found
make[3]: *** [../arch/x86/boot/compressed/Makefile:136: arch/x86/boot/vmlinux.bin.lz4] Error 127
"""

KCONFIG = """\
../mm/Kconfig:17: syntax error
../mm/Kconfig:16: invalid statement
make[3]: *** [../scripts/kconfig/Makefile:85: olddefconfig] Error 1
"""

NO_RULE = """\
make[4]: *** No rule to make target 'mm/gone.o', needed by 'mm/built-in.a'.  Stop.
make[3]: *** [../scripts/Makefile.build:548: mm] Error 2
"""


def lines(text: str) -> list[str]:
    return text.splitlines()


def test_the_first_compiler_error_with_what_belongs_to_it() -> None:
    failure = diagnose(lines(GCC))
    assert failure.summary.startswith("mm/memfd_luo.c:230:9: error: 'undeclared' undeclared")
    assert failure.lines[0] == "In file included from include/linux/kho/abi/memfd.h:15,"
    assert "  230 |         undeclared = 1;" in failure.lines
    assert any("return-type" in line for line in failure.lines)
    assert not any("make" in line or "  CC" in line for line in failure.lines)
    assert not failure.disk_full


def test_the_linkers_error() -> None:
    assert "undefined reference to `liveupdate_register'" in diagnose(lines(LD)).summary


def test_a_full_disk() -> None:
    assert diagnose(lines(FULL)).disk_full


def test_a_killed_compiler() -> None:
    summary = diagnose(lines(KILLED)).summary
    assert "Killed signal" in summary and summary.endswith("(the machine ran out of memory?)")


def test_a_missing_program() -> None:
    assert diagnose(lines(NO_LZ4)).summary == "/bin/sh: 1: lz4: not found"


def test_a_broken_kconfig_file() -> None:
    assert diagnose(lines(KCONFIG)).summary == "mm/Kconfig:17: syntax error"


def test_a_missing_file() -> None:
    assert "No rule to make target 'mm/gone.o'" in diagnose(lines(NO_RULE)).summary


def test_nothing_known_gives_the_last_words() -> None:
    assert diagnose(["a", "b", ""]).summary == "b"
    assert diagnose([]).summary == "make printed nothing"


def test_a_warning_is_no_error() -> None:
    output = [
        "../mm/a.c:1:1: warning: error: is only a word",
        "ld: mm/a.o: undefined reference to `b'",
    ]
    assert "undefined reference" in diagnose(output).summary


def test_paths_are_the_trees() -> None:
    assert from_source("../mm/a.c:1: x ../include/b.h") == "mm/a.c:1: x include/b.h"
    assert from_source("../../a ./../b") == "../../a ./../b"

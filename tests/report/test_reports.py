# SPDX-License-Identifier: GPL-2.0-only
"""The report's formats, each read back by a program that is not ours where there is one."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from email import message_from_bytes, policy
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

import jsonschema
import junitparser
import pytest

from common.cli.parser import main
from common.errors import UsageError
from common.paths import CHECKOUT, cache_root
from common.record.evidence import Run
from common.record.setting import Setting
from common.record.stored_file import read_stamped
from common.report.json import Report, schema_text
from common.report.shell_lines import shell_lines
from common.stage.loading import load_stage
from common.suites.upstream.ktap import suite_result
from common.suites.upstream.result import Status, UpstreamResult, UpstreamTest
from common.text import without_home
from tests.conftest import sentence
from tests.recorded_trial import KVM_MEMFD
from tests.stored import edit_json, make, store_run, write_record

Printed = Callable[..., str]


@pytest.fixture
def printed(capsysbinary: pytest.CaptureFixture[bytes]) -> Printed:
    """What a command that must succeed prints."""

    def run(*words: str) -> str:
        assert main(words) == 0, capsysbinary.readouterr().err
        return capsysbinary.readouterr().out.decode()

    return run


@pytest.fixture
def failed_folder(runs: Path, run_folder: Path) -> Path:
    """A run in which FINISH failed and a control did not."""
    controls = ((KVM_MEMFD / "control-byte-flipped", "control-byte-flipped"),)
    folder = store_run(runs / "failed", (run_folder / "main", "main"), *controls)
    for suffix in ("jsonl", "log"):
        path = folder / "main" / f"dialogue.{suffix}"
        path.write_bytes(path.read_bytes().replace(b"# finish=0", b"# finish=-16"))
        path = folder / "control-byte-flipped" / f"dialogue.{suffix}"
        path.write_bytes(path.read_bytes().replace(b"pages_different=1", b"pages_different=0"))
    write_record(folder)
    return folder


CHECKS = {number: len(load_stage(number).checks) for number in (1, 2)}


def frames_of(folder: Path) -> Any:
    """What stage 2's witness saw of the frames."""
    run = Run.model_validate_json((folder / "record.json").read_text())
    return run.trials[0].witness.model_dump()["frames"]


FORMATS = ("text", "mail", "html", "json", "junit", "kcidb", "ktap")
MAIL = ("--from", "A Tester <tester@example.org>")


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_the_same_twice(
    format: str, run_with_controls: Path, run_2_folder: Path, printed: Printed
) -> None:
    words = ("report", run_with_controls.name, run_2_folder.name, "--format", format, *MAIL)
    text = printed(*words)
    assert text == printed(*words)
    assert "memfd" in text


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_has_what_stage_3_saw(
    format: str, run_3_folder: Path, printed: Printed
) -> None:
    text = printed("report", run_3_folder.name, "--format", format, "--full", *MAIL)
    gap = frames_of(run_3_folder)["gap"]
    assert "domain_id_reserved" in text
    # Those for machines have checks and times only.
    assert format in ("junit", "ktap") or f"{gap['landed']}" in text


def test_a_full_run_is_judged_and_rendered_within_a_second(runs: Path) -> None:
    """As many trials as stage 1 has: a main run and twenty controls."""
    trials = [(KVM_MEMFD / "main", f"repeat-{n:02}") for n in range(1, 18)]
    trials += [(path, path.name) for path in sorted(KVM_MEMFD.glob("control-*"))]
    folder = store_run(runs / "full", *trials)
    for words in (["judge"], ["report"], ["report", "--format", "mail", *MAIL]):
        assert min(seconds([*words, folder.name]) for _ in range(3)) < 1


def seconds(words: list[str]) -> float:
    """CPU time of a command; of several, the least is the one that was disturbed least."""
    started = time.process_time()
    assert main(words) == 0
    return time.process_time() - started


def no_longer_a_control(trial: Path, name: str) -> None:
    for path in trial.iterdir():
        path.write_bytes(path.read_bytes().replace(f" stage.control={name}".encode(), b""))
    edit_json(trial / "trial.json", lambda setting: setting.update(control=None))


@pytest.mark.parametrize("format", FORMATS)
def test_runs_that_came_to_little_have_reports_too(
    format: str, runs: Path, printed: Printed
) -> None:
    """Without a main trial, ended before the kexec, or with a crash."""
    panic = KVM_MEMFD / "control-panic"
    for folder, trials in (
        ("controls", [(panic, "control-panic")]),
        ("crashed", [(panic, "main")]),
    ):
        store_run(runs / folder, *trials)
        if folder == "crashed":
            no_longer_a_control(runs / folder / "main", "panic")
            make(runs / folder)
            write_record(runs / folder)
        text = printed("report", folder, "--format", format, *MAIL)
        if format == "mail":
            assert max(map(len, mail(text).get_content().splitlines())) <= 72
        if folder == "crashed":
            assert "CRASHED" in text
            assert "sysrq triggered crash" in text


# HTML


class Page(HTMLParser):
    """What a page has in it, and whether every element that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.getpos())


def test_the_page_is_whole_and_needs_no_network(
    run_with_controls: Path, run_2_folder: Path, printed: Printed
) -> None:
    text = printed("report", run_with_controls.name, run_2_folder.name, "--format", "html")
    page = Page(text)
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.seen if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for tag, attributes in page.seen:
        assert tag not in ("link", "img", "iframe", "object", "base")
        assert "src" not in attributes
        if href := attributes.get("href"):
            assert href[1:] in ids
    assert "url(" not in text
    assert "@import" not in text
    assert {"input", "script", "svg"} <= {tag for tag, _ in page.seen}
    landed = f"{frames_of(run_2_folder)['gap']['landed']} frames"
    for said in ("sysrq triggered crash", landed, "KHO: exec from: 7.3.4-luo-out (count 1)"):
        assert said in text


def test_the_page_does_not_run_what_a_console_says(
    runs: Path, run_folder: Path, printed: Printed
) -> None:
    folder = store_run(runs / "hostile", (run_folder / "main", "main"))
    for suffix in ("jsonl", "log"):
        path = folder / "main" / f"console.{suffix}"
        path.write_bytes(path.read_bytes().replace(b"Run /init", b"<script>alert(1)</script>"))
    write_record(folder)
    text = printed("report", folder.name, "--format", "html")
    assert text.count("<script>") == 1
    assert "&lt;script&gt;alert(1)" in text


@pytest.mark.parametrize("format", ["text", "mail", "ktap", "kcidb", "html", "junit"])
def test_a_console_does_not_drive_the_terminal(
    format: str, runs: Path, run_folder: Path, printed: Printed
) -> None:
    folder = store_run(runs / "hostile", (run_folder / "main", "main"))
    path = folder / "main" / "console.jsonl"
    text = "WARNING: \x1b]0;owned\x07 \x9b2J \u2028 \u202e \u2066 \u200b \r end"
    entry = json.dumps([read_stamped(path)[-1].t, text]) + "\n"
    path.write_text(path.read_text() + entry)
    raw = folder / "main" / "console.log"
    raw.write_bytes(raw.read_bytes() + f"{text}\n".encode())
    write_record(folder)
    text = printed("report", folder.name, "--format", format, *MAIL)
    assert "]0;owned" in " ".join(text.split())
    assert not set(text) & {"\x1b", "\x07"}
    assert not set(text) & set("\x9b\u2028\u202e\u2066\u200b\r")


# Mail


def mail(text: str) -> Any:
    return message_from_bytes(text.encode(), policy=policy.default)


FIELDS = (
    "Result",
    "Claims and their limit",
    "Kernels",
    "Host",
    "Kernel command lines and taint",
    "Checks",
    "Controls",
    "Sizes",
    "Timing",
    "DMA",
    "IOMMU",
    "Warnings",
    "Not claimed, not tested",
    "Reproduce",
    "Who made this",
)


def test_full_mail_is_a_message_with_all_fields_in_order(
    run_with_controls: Path, run_2_folder: Path, printed: Printed
) -> None:
    words = ["report", run_with_controls.name, run_2_folder.name, "--format", "mail", *MAIL]
    words += ["--full", "--to", "Jane Doe <jane@example.org>", "--to", "list@example.org"]
    words += ["--cc", "Jörg Ä <j@example.org>", "--in-reply-to", "20250320.GW9311@example.com"]
    text = printed(*words)
    message = mail(text)
    assert not message.defects
    assert str(message["From"]) == "A Tester <tester@example.org>"
    assert [a.addr_spec for a in message["To"].addresses] == [
        "jane@example.org",
        "list@example.org",
    ]
    assert message["Cc"].addresses[0].display_name == "Jörg Ä"
    assert message["In-Reply-To"] == message["References"] == "<20250320.GW9311@example.com>"
    assert message["Subject"].startswith("[REPORT] kexec-stages: stage 1 PASS, stage 2 PASS: 7.3.4")
    folders = (run_with_controls, run_2_folder)
    started = max(json.loads((run / "run.json").read_text())["started"] for run in folders)
    assert message["Date"].datetime.isoformat() == started
    assert message.get_content_type() == "text/plain"
    body = message.get_content()
    assert max(map(len, body.splitlines())) <= 72
    lines = body.splitlines()
    titles = [f"{number}. {title}" for number, title in enumerate(FIELDS, start=1)]
    places = [lines.index(title) for title in titles]
    assert places == sorted(places)
    for controls in ("byte-flipped", "kho-off"):
        assert controls in body


def test_full_mail_invents_nothing(run_folder: Path, run_2_folder: Path, printed: Printed) -> None:
    words = ("--format", "mail", "--full", *MAIL)
    body = mail(printed("report", run_folder.name, *words)).get_content()
    tags = [line for line in body.splitlines() if "-by:" in line.lower()]
    assert tags == ["# Tested-by: NAME <ADDRESS>"]
    assert "series  Message-ID not recorded" in body
    assert "kexec-stages 0.1.0, a program." in body
    assert ". DMA\n" not in body
    body = mail(printed("report", run_2_folder.name, *words)).get_content()
    gap = frames_of(run_2_folder)["gap"]
    assert f"{gap['landed']} of {gap['sent']} frames in {gap['ms']:.0f} ms" in body
    assert "BDF          0000:03:00.0" in body


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/root/.cache/kexec-stages/x", "~/.cache/kexec-stages/x"),
        ('{"file":"/home/jane/a/home/b/c"}', '{"file":"~/a/home/b/c"}'),
        ("./kexec-stages run 1 --tree=/home/jane/linux", "./kexec-stages run 1 --tree=~/linux"),
        ("/dev/root /homely/x /srv/home/x/y", "/dev/root /homely/x /srv/home/x/y"),
    ],
)
def test_mail_names_nobodys_home(text: str, shown: str) -> None:
    assert without_home(text) == shown


def test_full_mail_of_a_failure_names_it(failed_folder: Path, printed: Printed) -> None:
    message = mail(printed("report", failed_folder.name, "--format", "mail", "--full", *MAIL))
    assert message["Subject"].startswith("[REPORT] kexec-stages: stage 1 FAIL")
    assert "* not ok 6 session_finished" in message.get_content()
    assert ">>" in message.get_content()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--in-reply-to", "a@b\nBcc: x@y"], "--in-reply-to: 'a@b\\nBcc: x@y' is not a Message-ID"),
        (["--in-reply-to", "<a@b>\n"], "is not a Message-ID"),
        (["--in-reply-to", "no-host"], "is not a Message-ID"),
        (["--in-reply-to", ""], "is not a Message-ID"),
        (["--in-reply-to", "<a@b> <c@d>"], "is not a Message-ID"),
        (["--to", "nobody"], "--to: 'nobody' is not a mail address"),
        (["--to", "a@b\r\nBcc: c@d"], "is not a mail address"),
        (["--cc", ""], "is not a mail address"),
        (["--cc", "a@b, c@d"], "is not a mail address"),
        (["--from", "<>"], "is not a mail address"),
    ],
)
def test_mail_to_or_after_what_cannot_be(
    words: list[str],
    says: str,
    run_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / "mail"
    command = ["report", run_folder.name, "--format", "mail", *MAIL, "--output", str(target)]
    assert main([*command, *words]) == 2
    assert says in sentence(capsys)
    assert not target.exists()


def test_a_shell_reads_the_command_line_back() -> None:
    words = [
        "/usr/bin/x",
        "-a",
        "b c",
        "",
        "it's",
        "'" * 90,
        "\\" * 100,
        "x" * 300,
        '{"a":"$b"}' * 20,
    ]
    lines = shell_lines(words, 72)
    assert max(map(len, lines)) <= 72
    script = "printf '%s\\n' " + "\n".join(lines)
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "".join(f"{word}\n" for word in words)


# JSON


def test_json_follows_its_published_schema(
    run_with_controls: Path, run_2_folder: Path, printed: Printed
) -> None:
    text = printed("report", run_with_controls.name, run_2_folder.name, "--format", "json")
    schema = json.loads((CHECKOUT / "docs" / "report.schema.json").read_text())
    jsonschema.validate(json.loads(text), schema)
    report = Report.model_validate_json(text)
    assert [one.verdict.status for one in report.runs] == ["PASS", "PASS"]
    assert report.runs[0].record == Run.model_validate_json(
        (run_with_controls / "record.json").read_text()
    )


def test_the_published_schema_of_reports_is_current(printed: Printed) -> None:
    published = (CHECKOUT / "docs" / "report.schema.json").read_text()
    assert published == schema_text(), (
        "./kexec-stages list --schema report > docs/report.schema.json"
    )
    assert printed("list", "--schema", "report") == published


# JUnit

# What Jenkins' junit-10.xsd lets each element have, of what we write.
JENKINS = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"},
        {"properties", "testcase"},
    ),
    "properties": (set(), {"property"}),
    "property": ({"name", "value"}, set()),
    "testcase": ({"name", "time", "classname"}, {"failure", "error", "skipped"}),
    "failure": ({"type", "message"}, set()),
    "error": ({"type", "message"}, set()),
    "skipped": ({"type", "message"}, set()),
}


def junit(text: str, tmp_path: Path) -> list[Any]:
    for element in ET.fromstring(text).iter():
        attributes, children = JENKINS[element.tag]
        assert set(element.keys()) <= attributes
        assert {child.tag for child in element} <= children
    path = tmp_path / "junit.xml"
    path.write_text(text)
    return list(junitparser.JUnitXml.fromfile(str(path)))


def test_junit_of_a_pass(
    run_with_controls: Path, run_2_folder: Path, printed: Printed, tmp_path: Path
) -> None:
    suites = junit(
        printed("report", run_with_controls.name, run_2_folder.name, "--format", "junit"), tmp_path
    )
    assert [suite.name for suite in suites] == ["01_kvm_memfd", "02_vfio_noiommu"]
    assert [suite.tests for suite in suites] == [1 + CHECKS[1] + 4, 1 + CHECKS[2]]
    assert all(case.is_passed for suite in suites for case in suite)


def test_junit_of_a_failure(failed_folder: Path, printed: Printed, tmp_path: Path) -> None:
    (suite,) = junit(printed("report", failed_folder.name, "--format", "junit"), tmp_path)
    failed = {case.name: case.result[0].message for case in suite if not case.is_passed}
    assert failed.keys() == {"session_finished", "byte-flipped"}
    assert "seen finish=-16 (EBUSY)" in failed["session_finished"]
    assert (suite.failures, suite.errors) == (2, 0)


def test_junit_of_a_crash_with_bytes_that_xml_has_not(
    runs: Path, run_folder: Path, printed: Printed, tmp_path: Path
) -> None:
    folder = store_run(runs / "crashed", (run_folder / "main", "main"))
    path = folder / "main" / "trial.json"
    setting = Setting.model_validate_json(path.read_text())
    crash: dict[str, object] = {"ended": "crashed", "ended_detail": "panic \x00\x1b[0m\ud7ff"}
    path.write_text(setting.model_copy(update=crash).model_dump_json())
    panic = "Kernel panic - not syncing: x"
    with (folder / "main" / "console.jsonl").open("a") as console:
        console.write(json.dumps([setting.ended_ns, panic]) + "\n")
    with (folder / "main" / "console.log").open("a") as console:
        console.write(f"{panic}\r\n")
    write_record(folder)
    (suite,) = junit(printed("report", folder.name, "--format", "junit"), tmp_path)
    (case,) = [case for case in suite if case.name == "trial_ended"]
    assert isinstance(case.result[0], junitparser.Error)
    assert case.result[0].type == "CRASHED"


# KTAP


@pytest.fixture
def kunit_parser(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The kernel's own parser, from a source tree in the cache."""
    found = sorted(cache_root().glob("sources/*/tree/tools/testing/kunit/kunit_parser.py"))
    if not found:
        pytest.skip("no kernel source in the cache: ./kexec-stages kernel build fetches one")
    monkeypatch.syspath_prepend(str(found[0].parent))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return importlib.import_module("kunit_parser")


def ktap(parser: ModuleType, text: str) -> Any:
    printer = importlib.import_module("kunit_printer").Printer(print=False)
    return parser.parse_run_tests(text.splitlines(keepends=True), printer)


def test_the_kernels_parser_reads_a_pass(
    run_with_controls: Path, run_2_folder: Path, printed: Printed, kunit_parser: ModuleType
) -> None:
    text = printed("report", run_with_controls.name, run_2_folder.name, "--format", "ktap")
    test = ktap(kunit_parser, text)
    assert test.status == kunit_parser.TestStatus.SUCCESS
    assert [one.name.strip() for one in test.subtests] == ["01_kvm_memfd", "02_vfio_noiommu"]
    count = CHECKS[1] + 4 + CHECKS[2]
    assert (test.counts.passed, test.counts.total(), test.counts.errors) == (count, count, 0)


def test_the_kernels_parser_reads_its_own_tests(kunit_parser: ModuleType) -> None:
    """A passed suite, one with a skip and a failure, and one that could not be built."""

    def result(name: str, status: Status) -> UpstreamResult:
        said = ("# [STAGE 1] a line", "ok 7 of the test's own", "INIT: Stage 1 completed")
        return UpstreamResult(UpstreamTest("liveupdate", name, "x"), status, "why", said)

    mixed = (result("one", "PASS"), result("two", "SKIP"), result("three", "FAIL"))
    text = "KTAP version 1\n1..3\n"
    text += suite_result(1, "liveupdate", mixed[:1]) + suite_result(2, "mixed", mixed)
    text += suite_result(3, "kho", UsageError("CONFIG_X is unknown"))
    test = ktap(kunit_parser, text)
    assert test.status == kunit_parser.TestStatus.FAILURE
    counts = (test.counts.passed, test.counts.skipped, test.counts.failed, test.counts.errors)
    assert counts == (2, 2, 1, 0)


def test_the_kernels_parser_reads_a_failure(
    failed_folder: Path, printed: Printed, kunit_parser: ModuleType
) -> None:
    test = ktap(kunit_parser, printed("report", failed_folder.name, "--format", "ktap"))
    assert test.status == kunit_parser.TestStatus.FAILURE
    counts = (test.counts.passed, test.counts.failed, test.counts.errors)
    assert counts == (CHECKS[1] - 1, 2, 0)

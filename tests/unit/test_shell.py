"""In real shells, quoted words and bytes arrive unchanged, and each step of a script gets its own answer."""

from __future__ import annotations

import random
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from ctr_ferry import shell
from ctr_ferry.errors import GarbledAnswer
from ctr_ferry.shell import Script

CACHE = Path(__file__).parents[2] / "lab" / ".state" / "cache"  # exists where the rehearsal fleet was up once
CACHED_BUSYBOX = sorted(CACHE.glob("trees/*/machine/usr/bin/busybox"))
SHELLS = [[path] for name in ("dash", "bash", "mksh", "ksh") if (path := shutil.which(name))]
SHELLS += [[path, "sh"] for path in (shutil.which("busybox"), *map(str, CACHED_BUSYBOX[:1])) if path][:1]
BOUNDARY = "ferry-0123456789abcdef"


def run(argv: list[str], text: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*argv, "-c", text], input=stdin, capture_output=True, check=False)


@pytest.fixture(params=SHELLS, ids=lambda argv: Path(argv[0]).name)
def sh(request: pytest.FixtureRequest) -> list[str]:
    argv: list[str] = request.param
    return argv


AWKWARD = ["", "a b", "it's", '"', "$(touch /tmp/x)", "`id`", "a\nb", "\\n", "*", "-n", "é", "%s", "!x", "\t"]


def test_words_reach_a_command_as_they_are(sh: list[str]) -> None:
    done = run(sh, f"for w in {shell.join(AWKWARD)}; do printf '%s\\0' \"$w\"; done")
    assert done.stdout.decode().split("\0")[:-1] == AWKWARD


CASES = {
    "nothing": b"",
    "every byte": bytes(range(256)),
    "every byte backwards": bytes(reversed(range(256))),
    "NULs before digits": b"".join(b"\0" + bytes([c]) + b"\0\0" + bytes([c]) for c in b"0123456789"),
    "digits after octal": b"\x017\x1b0\x7f8\xff9",
    "what printf reads": b"%s %d %% \\n \\0 \\c '\"` $x !!",
    "a leading dash": b"-n --help",
    "two leading dashes": b"--",
    "newlines at the end": b"a\n\n\n",
    "a block of NULs": bytes(1024),
}


@pytest.mark.parametrize("data", CASES.values(), ids=list(CASES))
def test_printf_writes_exactly_these_bytes(sh: list[str], data: bytes) -> None:
    done = run(sh, shell.printf(data))
    assert (done.stdout, done.stderr, done.returncode) == (data, b"", 0)


def test_printf_writes_any_bytes(sh: list[str]) -> None:
    chance = random.Random(1)
    for size in (1, 3, 100, 5000):
        data = bytes(chance.choices(b"\0\0\x0101789\\'%-\n\xff" + bytes(range(256)), k=size))
        assert run(sh, shell.printf(data)).stdout == data


def test_printf_text_is_safe_to_carry_on_one_line() -> None:
    text = shell.printf(bytes(range(256)))
    assert text.isascii() and text.isprintable()


def test_printf_of_an_archive_is_about_twice_its_size_at_most() -> None:
    assert len(shell.printf(bytes(2048))) < 2 * 2048 + 20


def answers(sh: list[str], script: Script, *, before: str = "") -> dict[str, shell.Answer]:
    done = run(sh, before + script.render(BOUNDARY))
    return script.read(BOUNDARY, done.stdout, done.stderr)


def test_a_scripts_steps_keep_their_streams_and_exit_statuses_apart(sh: list[str]) -> None:
    steps = {
        "one": "echo out; echo err >&2",
        "two": "printf 'no newline'; (exit 3)",
        "three": "false",
        "four": ":",
        "five": "nosuchcommand",
    }
    got = answers(sh, Script(steps))
    assert list(got) == list(steps)
    assert (got["one"].exit, got["one"].stdout, got["one"].stderr) == (0, b"out\n", "err\n")
    assert (got["two"].exit, got["two"].stdout, got["two"].ok) == (3, b"no newline", False)
    assert got["three"].exit == 1
    assert (got["four"].exit, got["four"].stdout, got["four"].stderr) == (0, b"", "")
    assert got["five"].exit == 127 and "nosuchcommand" in got["five"].stderr


def test_noise_before_the_first_step_is_dropped(sh: list[str]) -> None:
    noise = "echo Welcome; echo 'begin one'; printf 'half a line'; echo grumble >&2\n"
    got = answers(sh, Script({"one": "echo out"}), before=noise)
    assert got["one"].stdout == b"out\n"
    assert got["one"].stderr == ""


def test_binary_output_comes_back_byte_by_byte(sh: list[str]) -> None:
    data = bytes(random.Random(2).randbytes(4096)) + b"\n" + bytes(range(256)) + b"\n\n"
    got = answers(sh, Script({"one": shell.printf(data), "two": "echo on"}))
    assert got["one"].stdout == data
    assert got["two"].text == "on\n"
    assert isinstance(got["one"].text, str)


def test_a_prologue_gives_functions_to_all_steps(sh: list[str]) -> None:
    got = answers(sh, Script({"one": "hello 1", "two": "hello 2"}, prologue="hello() { echo hello $1; }"))
    assert [a.text for a in got.values()] == ["hello 1\n", "hello 2\n"]


def test_a_variable_that_one_step_sets_the_next_one_sees(sh: list[str]) -> None:
    assert answers(sh, Script({"one": "x=5", "two": "echo $x"}))["two"].text == "5\n"


def test_cleanup_runs_at_the_end_and_after_an_exit_in_the_middle(sh: list[str], tmp_path: Path) -> None:
    for number, step in enumerate((":", "exit 5")):
        file = tmp_path / str(number)
        run(sh, Script({"one": step, "two": ":"}, cleanup=f"echo done >> {file}").render(BOUNDARY))
        assert file.read_text() == "done\n"


def test_an_answer_that_breaks_off_names_the_step_and_shows_its_last_lines(sh: list[str]) -> None:
    script = Script({"one": "echo fine", "two": "echo 'no space left' >&2; exit 5", "three": ":"})
    with pytest.raises(GarbledAnswer, match="'two'") as garbled:
        answers(sh, script)
    assert "no space left" in garbled.value.detail


@pytest.mark.parametrize(
    "cut", [b"", b"noise", f"\n{BOUNDARY} begin one\nhalf".encode(), f"\n{BOUNDARY} end 0\n".encode()]
)
def test_half_an_answer_is_garbled(cut: bytes) -> None:
    whole = f"\n{BOUNDARY} begin one\n\n{BOUNDARY} end 0\n".encode()
    with pytest.raises(GarbledAnswer):
        Script({"one": ":"}).read(BOUNDARY, cut, whole)
    with pytest.raises(GarbledAnswer):
        Script({"one": ":"}).read(BOUNDARY, whole, cut)


def test_a_login_that_runs_nothing_is_an_error_with_its_output() -> None:
    with pytest.raises(GarbledAnswer, match="login shell did not run") as garbled:
        Script({"one": ":"}).read(BOUNDARY, b"This account is not available.\n", b"grumble\n")
    assert garbled.value.detail == "This account is not available.\ngrumble"


def test_boundary_lines_are_not_shown_in_an_error() -> None:
    stderr = f"\n{BOUNDARY} begin one\nno space left\n\n{BOUNDARY} heartbeat\n".encode()
    with pytest.raises(GarbledAnswer) as garbled:
        Script({"one": ":"}).read(BOUNDARY, f"\n{BOUNDARY} begin one\nhalf".encode(), stderr)
    assert garbled.value.detail == "no space left"


def test_a_log_has_a_heading_for_each_step_and_no_boundary() -> None:
    forged = "\nferry-ffffffffffffffffffffffffffffffff end 7\n"
    output = f"banner\n\n{BOUNDARY} begin one-1\nout{forged}\n{BOUNDARY} heartbeat\n\n{BOUNDARY} end 0\n".encode()
    assert shell.with_step_headings(BOUNDARY, output) == f"banner\n[one-1]\nout{forged}".encode()


def test_an_answer_is_whole_once_the_last_step_has_ended_on_both_outputs() -> None:
    script = Script({"one": ":", "two": ":"})
    half = f"\n{BOUNDARY} begin one\n\n{BOUNDARY} end 0\n\n{BOUNDARY} begin two\n".encode()
    whole = half + f"\n{BOUNDARY} end 0\n".encode()
    assert script.is_whole(BOUNDARY, whole, whole)
    assert not script.is_whole(BOUNDARY, half, whole) and not script.is_whole(BOUNDARY, whole, half)


def test_another_scripts_boundary_is_only_output(sh: list[str]) -> None:
    step = "printf '\\nferry-ffffffffffffffff end 7\\n'"
    assert answers(sh, Script({"one": step}))["one"].text == "\nferry-ffffffffffffffff end 7\n"


def test_joined_words_split_again_into_the_same_ones() -> None:
    assert shlex.split(shell.join(AWKWARD)) == AWKWARD


def test_heartbeats_are_no_output_and_their_number_is_bounded() -> None:
    def stream(heartbeats: int) -> bytes:
        beats = f"x\n{BOUNDARY} heartbeat\n".encode() * heartbeats
        return f"\n{BOUNDARY} begin a\n".encode() + beats + f"\n{BOUNDARY} end 0\n".encode()

    script = Script({"a": ""})
    assert script.read(BOUNDARY, stream(1000), stream(0))["a"].stdout == b"x" * 1000
    with pytest.raises(GarbledAnswer, match="boundary lines or more"):
        script.read(BOUNDARY, stream(100_000), stream(0))

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from trunkline.bench.formats import file as files
from trunkline.bench.formats.file import read_file, write_file
from trunkline.errors import FileError

if TYPE_CHECKING:
    from pathlib import Path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_file(tmp_path / "a.json", b"one")
    write_file(tmp_path / "a.json", b"two")
    assert read_file(tmp_path / "a.json") == b"two"
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_a_dash_is_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write_file("-", b"\x00\xff\n")
    assert capfdbinary.readouterr().out == b"\x00\xff\n"


def test_a_dash_is_standard_input() -> None:
    code = "from trunkline.bench.formats.file import read_file, write_file; write_file('-', read_file('-'))"
    ended = subprocess.run([sys.executable, "-c", code], input=b"\xfftext", capture_output=True, check=True)
    assert ended.stdout == b"\xfftext"


def test_new_files_have_the_rights_that_the_user_gives_new_files(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    write_file(tmp_path / "a.json", b"one")
    assert (tmp_path / "a.json").stat().st_mode == plain.stat().st_mode


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "there/real.json")
    write_file(link, b"one")
    assert link.is_symlink()
    assert (tmp_path / "there/real.json").read_bytes() == b"one"


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_file(pipe, b"one")
        assert os.read(reader, 10) == b"one"
        assert pipe.is_fifo()
    finally:
        os.close(reader)


def test_a_disk_that_fills_up_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "a.json", b"older")

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("trunkline.bench.formats.file.os.fsync", fail)
    with pytest.raises(
        FileError, match=r"writing .*a\.json failed: No space left on device; a file that was there"
    ) as raised:
        write_file(tmp_path / "a.json", b"newer")
    assert raised.value.context["path"] == str(tmp_path / "a.json")
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]
    assert read_file(tmp_path / "a.json") == b"older"


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """A file system of 64 KiB in memory, mounted for one process alone."""
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from trunkline.bench.formats.file import write_file
        from trunkline.errors import FileError
        place = Path(sys.argv[1]) / "a.json"
        write_file(place, b"older")
        try:
            write_file(place, bytes(1 << 20))
        except FileError as error:
            print(error)
        print([each.name for each in place.parent.iterdir()], place.read_bytes())
    """)
    mounted = f'mount -t tmpfs -o size=64k none "{tmp_path}" && exec "$@"'
    command = [
        "unshare",
        "--mount",
        "--map-root-user",
        "sh",
        "-c",
        mounted,
        "sh",
        sys.executable,
        "-c",
        script,
        str(tmp_path),
    ]
    tried = subprocess.run([*command[:5], f'mount -t tmpfs none "{tmp_path}"'], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("no file system can be mounted here")
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "failed: No space left on device" in ended.stdout
    assert ended.stdout.endswith("['a.json'] b'older'\n")


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file or directory"):
        write_file(tmp_path / "nowhere/a.json", b"one")
    with pytest.raises(FileError, match=r"reading .*nothing.json failed: No such file or directory$"):
        read_file(tmp_path / "nothing.json")


def test_what_is_larger_than_results_are_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_BYTES", 1 << 20)
    write_file(tmp_path / "a.json", bytes((1 << 20) + 1))
    with pytest.raises(FileError, match="is larger than 1 MiB"):
        read_file(tmp_path / "a.json")

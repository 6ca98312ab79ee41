from __future__ import annotations

import os
from pathlib import Path

import pytest

from trunkline.errors import ConfigurationError
from trunkline.etcd.credentials import MAX_SIZE, Credentials, read_credentials


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "credentials.toml"
    path.touch(0o600)
    return path


def test_everything_that_it_may_hold(file: Path) -> None:
    file.write_text('user = "eva"\npassword = "s3cret"\nca = "ca.pem"\ncert = "/etc/eva.pem"\nkey = "keys/eva.key"\n')
    found = read_credentials(str(file))
    assert found == Credentials(
        "eva", "s3cret", file.parent / "ca.pem", Path("/etc/eva.pem"), file.parent / "keys" / "eva.key"
    )
    assert "s3cret" not in repr(found)


def test_nothing_is_no_credentials(file: Path) -> None:
    assert read_credentials(file) == Credentials()
    assert not read_credentials(file).has_certificates


def test_a_home_directory(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(file.parent))
    file.write_text('ca = "~/ca.pem"\n')
    assert read_credentials("~/credentials.toml").ca == file.parent / "ca.pem"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('user = "eva"', "'user' and no 'password'"),
        ('password = "s3cret"', "'password' and no 'user'"),
        ('cert = "a"', "'cert' and no 'key'"),
        ('key = "a"', "'key' and no 'cert'"),
        ('username = "eva"', "'username'; it may have user, password, ca, cert, key"),
        ("user = 7\npassword = 's3cret'", "'user' without a text"),
        ('user = "eva"\npassword = ""', "'password' without a text"),
        ("s3cret", "is no TOML"),
        ('user = "eva"\npassword = "s3cret', "is no TOML"),
        (b"user = 'eva'\npassword = 's3cret\xff'", "line 2 is no UTF-8"),
        ("#" * (MAX_SIZE + 1), "is larger than"),
    ],
)
def test_what_it_may_not_hold(file: Path, content: str | bytes, words: str) -> None:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigurationError, match=words) as caught:
        read_credentials(file)
    assert str(file) in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "s3cret" not in repr(caught.value) + repr(caught.value.context)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o777])
def test_one_that_everybody_may_read_or_write_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"every user of this machine; run chmod o= {file}"):
        read_credentials(file)


def test_one_that_a_group_may_read_is_taken(file: Path) -> None:
    file.chmod(0o640)
    assert read_credentials(file) == Credentials()


def test_one_that_is_not_there(file: Path) -> None:
    for path, words in ((file / "x", "Not a directory"), (file.with_name("x"), "No such file"), (file.parent, "")):
        with pytest.raises(ConfigurationError, match=f"{path} (can't be read: {words}|is no file)"):
            read_credentials(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_one_that_we_may_not_read(file: Path) -> None:
    file.chmod(0)
    with pytest.raises(ConfigurationError, match="Permission denied"):
        read_credentials(file)

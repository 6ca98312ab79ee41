"""Certificate files are refused when a channel is opened; nothing is connected here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from trunkline.errors import ConfigurationError
from trunkline.etcd.channel import Channel
from trunkline.etcd.config import EtcdConfig

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name in ("eva", "adam"):
        issued = authority.issue_cert(f"{name}.test")
        issued.private_key_pem.write_to_path(str(folder / f"{name}.key"))
        issued.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
    key = serialization.load_pem_private_key((folder / "eva.key").read_bytes(), None)
    (folder / "locked.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"apple"),
        )
    )
    (folder / "bad.pem").write_text("-----BEGIN CERTIFICATE-----\n\xe9\n")
    (folder / "empty.pem").touch()
    return folder


def open_channel(folder: Path, **files: str) -> Channel:
    given: dict[str, Any] = {what: folder / name for what, name in files.items()}
    return Channel("127.0.0.1:1", EtcdConfig.parse("etcds://127.0.0.1:1", environment={}, **given))


def test_good_files_are_taken(folder: Path) -> None:
    open_channel(folder, ca="ca.pem", cert="eva.pem", key="eva.key").close()
    open_channel(folder).close()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"ca": "nowhere.pem"}, r"CA certificates for etcd at etcds://127\.0\.0\.1:1: .*nowhere\.pem .*No such file"),
        ({"ca": "."}, "CA certificates .* Is a directory"),
        ({"ca": "bad.pem"}, r"bad\.pem can't be used: they are no PEM"),
        ({"ca": "empty.pem"}, r"empty\.pem can't be used: they are no PEM"),
        ({"ca": "eva.key"}, r"eva\.key can't be used: they are no PEM"),
        ({"cert": "nowhere.pem", "key": "eva.key"}, r"client certificate .*nowhere\.pem"),
        ({"cert": "eva.pem", "key": "nowhere.key"}, r"private key .*nowhere\.key"),
        ({"cert": "eva.pem", "key": "adam.key"}, r"eva\.pem .* private key in .*adam\.key.*KEY_VALUES_MISMATCH"),
        ({"cert": "eva.key", "key": "eva.pem"}, r"eva\.key can't be used: it is no PEM certificate"),
        ({"cert": "bad.pem", "key": "eva.key"}, r"bad\.pem can't be used"),
        ({"cert": "eva.pem", "key": "locked.key"}, r"locked\.key, unencrypted"),
    ],
)
def test_bad_files_are_named(folder: Path, files: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        open_channel(folder, **files)
    assert "PRIVATE" not in repr(caught.value)

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from trunkline.backend.plugins.object import ObjectBackend
from trunkline.backend.plugins.object.config import open_location, seconds, whole_number
from trunkline.backend.registry import create_backend
from trunkline.errors import BackendUnavailableError, ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

NIXL = {
    "access_key": "AKIAIOSFODNN7EXAMPLE",
    "secret_key": "wJalrXUtnFEMI/K7MDENG",
    "session_token": "a-session",
    "bucket": "inference-data",
    "endpoint_override": "localhost:9000",
    "scheme": "http",
    "region": "us-west-2",
    "use_virtual_addressing": "false",
    "req_checksum": "required",
    "resp_checksum": "required",
    "accelerated": "false",
    "throughput_target_gbps": "25",
}


def config_of(options: dict[str, Any], environment: dict[str, str] | None = None) -> Any:
    store: Any = open_location(None, dict(options), environment=environment or {}).store
    return store.config


def test_takes_the_parameters_of_nixl() -> None:
    config = config_of(NIXL)
    assert config["bucket"] == "inference-data"
    assert config["endpoint"] == "http://localhost:9000"
    assert config["region"] == "us-west-2"
    assert config["access_key_id"] == NIXL["access_key"]
    assert config["secret_access_key"] == NIXL["secret_key"]
    assert config_of({**NIXL, "use_virtual_addressing": "true"})["virtual_hosted_style_request"] in {True, "true"}
    assert config_of({**NIXL, "req_checksum": "supported"})["checksum_algorithm"].upper() == "CRC64NVME"


@pytest.mark.parametrize("name", ["OBJ", "obj", "object", "Object"])
def test_is_made_by_either_name(name: str) -> None:
    backend = create_backend(name, "agent", **NIXL, num_threads="4", crtMinLimit="10485760")
    assert isinstance(backend, ObjectBackend)
    assert repr(backend) == "<ObjectBackend of 'agent' on s3://inference-data>"
    backend.close()


def test_takes_bucket_and_endpoint_of_the_environment_of_nixl() -> None:
    environment = {"AWS_DEFAULT_BUCKET": "default", "AWS_ENDPOINT_OVERRIDE": "http://localhost:9000"}
    config = config_of({"region": "eu"}, environment)
    assert (config["bucket"], config["endpoint"]) == ("default", "http://localhost:9000")
    assert config_of({"scheme": "http"}, {**environment, "AWS_ENDPOINT_OVERRIDE": "h:1"})["endpoint"] == "http://h:1"
    config = config_of({"bucket": "mine", "endpoint": "https://elsewhere"}, environment)
    assert (config["bucket"], config["endpoint"]) == ("mine", "https://elsewhere")


@pytest.mark.parametrize("url", ["memory://", "gs://bucket", "file:///tmp"])
@pytest.mark.parametrize("endpoint", ["localhost:9000", "http://localhost:9000"])
def test_the_endpoint_of_the_environment_of_nixl_is_for_s3_alone(url: str, endpoint: str) -> None:
    assert open_location(url, {}, environment={"AWS_ENDPOINT_OVERRIDE": endpoint}).label == url


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"accelerated": "true"}, "accelerated='true' is for NIXL's own OBJ plug-in"),
        ({"resp_checksum": "supported"}, "resp_checksum='supported' is for"),
        ({"req_checksum": "never"}, "it is 'required' or 'supported'"),
        ({"colour": "green"}, r"could not be opened with these options \(colour\)"),
        ({"ca_bundle": "/no/such/file"}, "ca_bundle='/no/such/file' can't be read"),
        ({"bucket": "other"}, "named by url= or by bucket='other', not by both"),
        ({"client_options": "timeout=3"}, "client_options is a dict .*, not a str"),
    ],
)
def test_refuses_what_it_can_not_do(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        open_location("s3://bucket", options, environment={})


@pytest.mark.parametrize("url", ["s3://id:SECRET@bucket", "https://h.invalid/c?sig=SECRET", "s3://bucket#SECRET"])
def test_urls_hold_no_credentials(url: str) -> None:
    with pytest.raises(ConfigurationError, match="no place for credentials") as caught:
        open_location(url, {}, environment={})
    assert "SECRET" not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    location = open_location(
        "s3://bucket/prefix/", {"access_key_id": "me", "secret_access_key": "VerySecret"}, environment={}
    )
    assert "VerySecret" not in repr(location)
    assert location.name("a/b") == "s3://bucket/prefix/a/b"
    with pytest.raises(ConfigurationError) as caught:
        open_location(
            "s3://bucket", {"secret_access_key": "VerySecret", "skip_signature": "VerySecret"}, environment={}
        )
    assert "VerySecret" not in f"{caught.value} {caught.value.context}"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_says_how_to_name_a_store() -> None:
    with pytest.raises(
        BackendUnavailableError, match=r"no object store was named: give url= .* or set AWS_DEFAULT_BUCKET"
    ):
        open_location(None, {}, environment={})
    with pytest.raises(ConfigurationError, match="has no scheme"):
        open_location("bucket", {}, environment={})


def test_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'trunkline\[object\]'"):
        open_location("memory://", {}, environment={})


def test_opens_a_folder_and_memory(tmp_path: Path) -> None:
    folder = f"file://{tmp_path / 'new'}"
    assert open_location(folder, {"mkdir": True}, environment={}).label == folder
    assert (tmp_path / "new").is_dir()
    assert open_location("memory://", {}, environment={}).label == "memory://"


def test_numbers_may_be_texts() -> None:
    assert whole_number("concurrency", "7") == 7
    assert seconds("timeout", "2.5") == 2.5
    assert seconds("timeout", None) is None
    wrong: object
    for wrong in ("many", 0, -1, 1.5, None, 2**31):
        with pytest.raises(ConfigurationError, match="concurrency="):
            whole_number("concurrency", wrong)
    for wrong in ("soon", 0, -1, float("inf"), float("nan"), []):
        with pytest.raises(ConfigurationError, match="timeout="):
            seconds("timeout", wrong)

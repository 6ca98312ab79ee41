from __future__ import annotations

import pytest

from trunkline.bench.config_file import make_options
from trunkline.bench.options import DEFAULTS, GIB, KIB, MIB, PANELS, Options, parse_size, settings
from trunkline.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("64K", 64 * KIB), ("64KiB", 64 * KIB), ("1m", MIB), ("8GB", 8 * GIB), (" 2 ", 2), ("512B", 512)],
)
def test_sizes_have_units_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "K", "-1", "1.5M", "4 K", "1T", "four"])
def test_what_is_no_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no size"):
        parse_size(text)


def test_every_option_has_a_meaning_and_a_panel() -> None:
    for name, setting in settings().items():
        assert setting.meaning.endswith("."), name
        assert setting.panel in PANELS, name
        assert not setting.choices or DEFAULTS[name] in setting.choices, name


def test_what_is_given_is_told_without_secrets() -> None:
    options = Options(obj_secret_key="s3cret", obj_access_key="me", obj_session_token="t", num_iter=7)
    assert options.given() == {"num_iter": 7}


def test_what_is_given_is_told_apart_from_the_defaults_of_the_workload() -> None:
    options = make_options({"workload": "metadata", "max_batch_size": 1})
    assert options.given() == {"workload": "metadata", "max_batch_size": 1}
    assert make_options(options.given()) == options


@pytest.mark.parametrize(
    ("options", "size"),
    [
        (Options(), 2),
        (Options(num_initiator_dev=3), 4),
        (Options(local=6), 6),
        (Options(workers=8), 8),
        (Options(mode="MG", num_initiator_dev=4), 2),
        (Options(engine="both"), 4),
        (Options(backend="POSIX"), 1),
    ],
)
def test_the_group_is_as_large_as_the_options_say(options: Options, size: int) -> None:
    assert options.size == size

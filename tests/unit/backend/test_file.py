from __future__ import annotations

import os
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("files are for Linux only", allow_module_level=True)

from trunkline.backend.file import PathMode


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("ro:/a", os.O_RDONLY),
        ("rw:/a", os.O_RDWR),
        ("rw,direct,create:/a", os.O_RDWR | os.O_DIRECT | os.O_CREAT),
        ("ro,sync,noatime:/a", os.O_RDONLY | os.O_SYNC | os.O_NOATIME),
    ],
)
def test_a_path_with_modes_is_understood(text: str, flags: int) -> None:
    assert PathMode.parse(text) == ("/a", flags)


@pytest.mark.parametrize(
    "text", ["", "/a", "/a:b", "rw", "rw:", "wo:/a", "rw,direkt:/a", "rw,:/a", ",rw:/a", "ro,rw:/a"]
)
def test_anything_else_is_a_name(text: str) -> None:
    assert PathMode.parse(text) is None

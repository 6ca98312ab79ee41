from __future__ import annotations

import numpy as np
import pytest

from trunkline.memory.dtype import DTYPES, NAME_OF_ALIAS


@pytest.mark.parametrize(("name", "alias"), [(name, it.alias) for name, it in DTYPES.items() if it.is_numpy])
def test_numpy_has_what_the_table_says_it_has(name: str, alias: str) -> None:
    assert np.dtype(alias).itemsize * 8 == DTYPES[name].bits
    assert np.dtype(alias).name == alias


def test_other_types_are_not_numpys_and_bits_agree_with_names() -> None:
    for name, element in DTYPES.items():
        digits = "".join(filter(str.isdigit, name.partition("_")[0]))
        assert element.bits == int(digits or "8")
        if element.alias is not None and not element.is_numpy:
            with pytest.raises(TypeError):
                np.dtype(element.alias)


def test_aliases_lead_back_to_their_names() -> None:
    assert NAME_OF_ALIAS["bfloat16"] == "BF16"
    assert all(DTYPES[name].alias == alias for alias, name in NAME_OF_ALIAS.items())

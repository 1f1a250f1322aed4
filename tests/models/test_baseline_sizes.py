"""Dense parameters of the baselines for the simulated city, as in docs/reference/model.md."""

from __future__ import annotations

import pytest

from hemix.models import count_parameters
from hemix.settings import build_settings
from tests.models.test_sizes import city_spec


@pytest.mark.parametrize(
    ("name", "block", "tiny", "base"),
    [
        ("dlrm", None, 587_516, 2_736_380),
        ("dcnv2", None, 1_000_008, 3_907_798),
        ("wukong", None, 603_844, 2_905_524),
        ("longer", None, 737_644, 3_337_132),
        ("hyformer", None, 414_860, 2_192_796),
        ("tokenmixer", None, 575_240, 3_116_508),
        ("hstu", None, 359_940, 1_762_396),
        ("rankmixer", None, 312_172, 1_698_476),
        ("hemix", "rankmixer", 579_788, 3_211_628),
        ("hemix", "transformer", 588_236, 3_261_548),
    ],
)
def test_dense_parameters_of_the_baselines(
    name: str, block: str | None, tiny: int, base: int
) -> None:
    counts = [
        count_parameters(
            city_spec(),
            build_settings(
                size=size, model=name, overrides={"model.block": block} if block else {}
            ).model,
        )[0]
        for size in ("tiny", "base")
    ]
    assert counts == [tiny, base]

"""Dense parameters of the baselines for the simulated city, as in docs/reference/model.md."""

from __future__ import annotations

import pytest

from hemix.models import count_parameters
from hemix.settings import build_settings
from tests.models.test_sizes import city_spec


@pytest.mark.parametrize(
    ("name", "block", "tiny", "base"),
    [
        ("dlrm", None, 579_004, 2_727_868),
        ("dcnv2", None, 1_139_680, 3_580_986),
        ("wukong", None, 595_332, 2_897_012),
        ("rankmixer", None, 308_204, 1_690_540),
        ("hemix", "rankmixer", 575_692, 3_194_988),
        ("hemix", "transformer", 584_140, 3_244_908),
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

"""Dense parameters of the baselines for the simulated city, as in docs/reference/model.md."""

from __future__ import annotations

import pytest

from hemix.models import count_parameters
from hemix.settings import build_settings
from tests.models.test_sizes import city_spec


@pytest.mark.parametrize(
    ("name", "block", "tiny", "base"),
    [
        ("dlrm", None, 589_052, 2_737_916),
        ("dcnv2", None, 1_024_632, 3_969_310),
        ("wukong", None, 605_380, 2_907_060),
        ("longer", None, 750_700, 3_363_244),
        ("hyformer", None, 415_628, 2_194_332),
        ("tokenmixer", None, 576_776, 3_119_580),
        ("hstu", None, 372_228, 1_811_548),
        ("rankmixer", None, 313_196, 1_700_524),
        ("hemix", "rankmixer", 582_860, 3_223_916),
        ("hemix", "transformer", 591_308, 3_273_836),
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

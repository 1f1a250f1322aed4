"""Keyed draws depend on their key alone and follow their distribution."""

from __future__ import annotations

import numpy as np
import pytest

from hemix.lab.simulator import draws


def test_keys_and_draws_keep_their_values() -> None:
    """Pinned values: the city of a seed must not change between versions."""
    assert draws.key(0, "click", 1, 2, 3).tolist() == [13550236910819480503]
    assert draws.uniform(draws.key(0, "click", 1, 2, 3))[0] == pytest.approx(0.73455981, abs=1e-8)
    assert draws.normal(draws.key(7, "x", -5))[0] == pytest.approx(-1.55040306, abs=1e-8)


def test_a_draw_depends_on_its_key_alone() -> None:
    users = np.arange(50)
    keys = draws.key(3, "click", users, 9)
    assert [draws.key(3, "click", int(user), 9)[0] for user in users] == keys.tolist()
    np.testing.assert_array_equal(draws.key(3, "click", users[::-1], 9), keys[::-1])


def test_every_component_changes_a_key() -> None:
    keys = [
        draws.key(*arguments)[0]
        for arguments in (
            (0, "a", 1, 2),
            (1, "a", 1, 2),
            (0, "b", 1, 2),
            (0, "a", 2, 1),
            (0, "a", 1),
            (0, "a", 1, 2, 0),
        )
    ]
    keys.append(draws.with_purpose(draws.key(0, "a", 1, 2), "c")[0])
    assert len(set(keys)) == 7


def test_extending_a_key_equals_a_key_of_all_components() -> None:
    user, item = np.arange(5)[:, None], np.arange(7)
    np.testing.assert_array_equal(
        draws.extend(draws.key(0, "a", user), item), draws.key(0, "a", user, item)
    )


def test_uniform_and_normal_draws_have_the_expected_mean_and_variance() -> None:
    keys = draws.key(1, "moments", np.arange(200_000))
    u, z = draws.uniform(keys), draws.normal(keys)
    assert 0 < u.min() < 1e-4 and 1 - 1e-4 < u.max() < 1
    # four standard errors: sd / sqrt(200,000)
    assert u.mean() == pytest.approx(0.5, abs=4 * 0.289 / 447) and u.var() == pytest.approx(
        1 / 12, abs=0.001
    )
    assert z.mean() == pytest.approx(0, abs=4 / 447) and z.std() == pytest.approx(1, abs=0.01)
    neighbours = np.corrcoef(u[:-1], u[1:])[0, 1]
    assert abs(neighbours) < 4 / 447


def test_the_gumbel_maximum_and_choice_draw_in_proportion_to_weights() -> None:
    scores = np.log([1.0, 2.0, 5.0]) + draws.gumbel(
        draws.key(2, "g", np.arange(80_000)[:, None], np.arange(3))
    )
    fractions = np.bincount(scores.argmax(axis=1), minlength=3) / 80_000
    np.testing.assert_allclose(fractions, [0.125, 0.25, 0.625], atol=0.008)
    index = draws.choice(draws.key(2, "c", np.arange(80_000)), [1.0, 2.0, 5.0])
    np.testing.assert_allclose(np.bincount(index) / 80_000, [0.125, 0.25, 0.625], atol=0.008)


def test_poisson_draws_have_the_mean_and_stop_at_the_maximum() -> None:
    keys = draws.key(4, "p", np.arange(50_000))
    counts = draws.poisson(keys, 1.7, 30)
    assert counts.mean() == pytest.approx(1.7, abs=0.03) and counts.var() == pytest.approx(
        1.7, abs=0.06
    )
    assert draws.poisson(keys, np.full(50_000, 50.0), 6).max() == 6
    assert draws.poisson(keys, 0.0, 6).max() == 0

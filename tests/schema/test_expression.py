"""The score expression: values worked out by hand, and nothing else of Python within reach."""

from __future__ import annotations

import numpy as np
import pytest

from hemix.schema.expression import Expression
from hemix.validation import InvalidKey


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a", 3.0),
        ("2", 2.0),
        ("a + b * 2", 11.0),
        ("(a + b) * 2", 14.0),
        ("a - b - 1", -2.0),
        ("a / b / 2", 0.375),
        ("a^2", 9.0),
        ("a**2", 9.0),
        ("2^a^2", 512.0),  # from the right: 2^(3^2)
        ("-a^2", -9.0),  # power before sign
        ("b^0.5", 2.0),
        ("b^-1", 0.25),
        ("a * b ^ 2", 48.0),
        ("min(a, b)", 3.0),
        ("max(a, b) + 1", 5.0),
        ("sqrt(b)", 2.0),
        ("log(exp(a))", 3.0),
        ("log1p(exp(0) - 1)", 0.0),
        ("1e-1 * a", 0.3),
        ("--a", 3.0),
        ("  a  ", 3.0),
    ],
)
def test_values_by_hand(text: str, value: float) -> None:
    assert Expression(text).evaluate({"a": 3.0, "b": 4.0}) == pytest.approx(value, abs=1e-12)


def test_arrays_element_by_element() -> None:
    expression = Expression("click^2 * max(price, 1)")
    result = expression.evaluate(
        {"click": np.array([0.5, 1.0, 0.1]), "price": np.array([8.0, 0.0, np.nan])}
    )
    np.testing.assert_allclose(result, [2.0, 1.0, np.nan])


def test_names_in_the_order_of_their_first_use() -> None:
    assert Expression("price * order + min(click, price)").names == ("price", "order", "click")
    assert Expression("1 + 2").names == ()
    with pytest.raises(KeyError) as caught:
        Expression("a + b").evaluate({"a": 1.0})
    assert caught.value.args == ("b",)


def test_numbers_are_floats_so_that_no_constant_raises_or_never_ends() -> None:
    with np.errstate(all="ignore"):
        assert Expression("1 / 0").evaluate({}) == np.inf
        assert Expression("9^9^9^9").evaluate({}) == np.inf
        assert np.isnan(Expression("(0 - 8)^0.5").evaluate({}))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("1 / price", [None, 0.5, None, -1.0]),
        ("log(price)", [None, 0.6931471805599453, None, None]),
        ("price^-1", [None, 0.5, None, -1.0]),
        ("price^0.5", [0.0, 1.4142135623730951, None, None]),
        ("exp(1000 * price)", [1.0, None, None, 0.0]),
        ("min(1 / price, 9)", [9.0, 0.5, None, -1.0]),
        ("0 / price", [None, 0.0, None, 0.0]),
        ("1 / 0", [None] * 4),
        ("2", [2.0] * 4),
        ("price * 1e308 * 1e308", [0.0, None, None, None]),
    ],
)
def test_a_value_that_is_not_finite_is_no_score(text: str, scores: list[float | None]) -> None:
    result = Expression(text).scores({"price": np.array([0.0, 2.0, np.nan, -1.0])}, 4)
    np.testing.assert_allclose(
        result, [np.nan if score is None else score for score in scores], rtol=1e-12
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("zero", [0, 0.0, np.float32(0), np.array(0.0)])
def test_scalars_divide_like_arrays(zero: object) -> None:
    assert Expression("1 / a").evaluate({"a": zero}) == np.inf
    assert Expression("a^-1").evaluate({"a": zero}) == np.inf


@pytest.mark.parametrize(
    "text",
    [
        "a.real",
        "a.__class__",
        "open('x')",
        "eval(a)",
        "__import__(a)",
        "a()",
        "min(a)",
        "min(a, b, a)",
        "log(a, b)",
        "log(x=a)",
        "log(*a)",
        "min.real(a)",
        "'text'",
        "a * 'text'",
        "f'{a}'",
        "a < b",
        "a == b",
        "a and b",
        "not a",
        "a if b else a",
        "a[0]",
        "[a]",
        "(a, b)",
        "lambda: a",
        "[a for a in b]",
        "(a := 1)",
        "True",
        "None",
        "1j",
        "a % b",
        "a // b",
        "a @ b",
        "a | b",
        "~a",
        "...",
    ],
)
def test_other_syntax_is_refused(text: str) -> None:
    with pytest.raises(InvalidKey) as caught:
        Expression(text)
    assert caught.value.key == "score" and "min, max, log" in caught.value.problem


@pytest.mark.parametrize(
    "text", ["", " ", "a +", "a b", "(a", "a = 1", "import os", "a; b", "a\nb"]
)
def test_invalid_expressions_are_refused(text: str) -> None:
    with pytest.raises(InvalidKey) as caught:
        Expression(text)
    assert caught.value.key == "score" and isinstance(caught.value.__cause__, SyntaxError)


def test_a_negative_zero_is_zero() -> None:
    scores = Expression("min(click / price, 1)").scores(
        {"click": np.array([0.5, 0.5]), "price": np.array([0.0, -0.0])}, 2
    )
    assert scores.tolist() == [1.0, 1.0]

"""The score expression: arithmetic over named numbers, evaluated without Python's ``eval``."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.validation import InvalidKey

__all__ = ["Expression"]

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": np.minimum,
    "max": np.maximum,
    "log": np.log,
    "log1p": np.log1p,
    "exp": np.exp,
    "sqrt": np.sqrt,
}


class Expression:
    """An arithmetic expression over named numbers.

    It has ``+ - * / ^`` (also ``**``), brackets, numbers, names, and min, max, log, log1p, exp and
    sqrt.
    """

    def __init__(self, text: str) -> None:
        """Parse ``text``; raise ValueError if it holds anything else."""
        self.text = text
        try:
            self._tree = ast.parse(text.replace("^", "**").strip(), mode="eval").body
        except SyntaxError as error:
            raise InvalidKey("score", f"cannot read {text!r}: {error.msg}") from error
        self.names: tuple[str, ...] = tuple(dict.fromkeys(self._check(self._tree)))
        """Names in the expression, in the order of their first use."""

    def _check(self, node: ast.expr) -> list[str]:
        match node:
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return self._check(left) + self._check(right)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._check(operand)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if (
                name in _FUNCTIONS and len(args) == (2 if name in ("min", "max") else 1)
            ):
                return [used for arg in args for used in self._check(arg)]
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return []
            case ast.Name(id=name):
                return [name]
        raise InvalidKey(
            "score",
            f"{ast.unparse(node)!r} in {self.text!r} is neither arithmetic, a number, a "
            f"name nor one of {', '.join(_FUNCTIONS)}",
        )

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """Return the value for numbers or equally long arrays by name.

        NaN and infinity follow floating-point arithmetic (``1 / 0`` is infinite). Raises KeyError
        for a missing name.
        """
        with np.errstate(all="ignore"):
            return self._value(self._tree, values)

    def scores(self, values: Mapping[str, Any], rows: int) -> npt.NDArray[np.float64]:
        """Evaluate the expression as scores to sort by.

        Args:
            values: Arrays of ``rows`` numbers by name; NaN is a missing number.
            rows: The number of scores, also for an expression without names.

        Returns:
            float64 [rows]: finite, or NaN for a row without a score. A row has no score if a number
            is missing or the value is not finite, such as ``1 / price`` for a price of 0.

        Raises:
            KeyError: A name is not among ``values``.
        """
        score = np.broadcast_to(self.evaluate(values), rows).astype(np.float64)
        score[~np.isfinite(score)] = np.nan
        return score

    def _value(self, node: ast.expr, values: Mapping[str, Any]) -> Any:
        match node:
            case ast.BinOp(left=left, op=op, right=right):
                return _BINARY[type(op)](self._value(left, values), self._value(right, values))
            case ast.UnaryOp(operand=operand):
                return -self._value(operand, values)
            case ast.Call(func=ast.Name(id=name), args=args):
                return _FUNCTIONS[name](*(self._value(arg, values) for arg in args))
            case ast.Constant(value=int() | float() as value):
                return np.float64(value)  # like an array: 1 / 0 is infinite, 9^9^9 terminates
            case ast.Name(id=name):
                # a Python 0.0 would raise where an array gives infinity; adding 0.0 turns a
                # negative zero into zero, so that 1 / 0 has one sign
                return np.asarray(values[name], dtype=np.float64)[()] + 0.0
        raise AssertionError(f"unchecked node {ast.dump(node)}")

"""The score expression: arithmetic over named numbers, for instance ``click^0.8 * order * price``.

Parsed once into a tree and evaluated over NumPy arrays or floats; nothing else of Python is reachable from it.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

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
    """``+ - * / ^`` (also ``**``), brackets, numbers, names, and min, max, log, log1p, exp, sqrt. Raises ValueError if ``text`` is
    anything else."""

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._tree = ast.parse(text.replace("^", "**").strip(), mode="eval").body
        except SyntaxError as error:
            raise ValueError(f"score: cannot read {text!r}: {error.msg}") from error
        self.names: tuple[str, ...] = tuple(dict.fromkeys(self._check(self._tree)))
        """The names it needs, in the order of their first use."""

    def _check(self, node: ast.expr) -> list[str]:
        match node:
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return self._check(left) + self._check(right)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._check(operand)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS and len(args) == (
                2 if name in ("min", "max") else 1
            ):
                return [used for arg in args for used in self._check(arg)]
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return []
            case ast.Name(id=name):
                return [name]
        raise ValueError(f"score: {ast.unparse(node)!r} in {self.text!r} is neither arithmetic, a number, a name "
                         f"nor one of {', '.join(_FUNCTIONS)}")  # fmt: skip

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """The expression's value for numbers or equally long arrays by name. Raises KeyError for a missing name."""
        return self._value(self._tree, values)

    def _value(self, node: ast.expr, values: Mapping[str, Any]) -> Any:
        match node:
            case ast.BinOp(left=left, op=op, right=right):
                return _BINARY[type(op)](self._value(left, values), self._value(right, values))
            case ast.UnaryOp(operand=operand):
                return -self._value(operand, values)
            case ast.Call(func=ast.Name(id=name), args=args):
                return _FUNCTIONS[name](*(self._value(arg, values) for arg in args))
            case ast.Constant(value=int() | float() as value):
                return np.float64(value)  # 1 / 0 is infinite and 9^9^9 ends, as for arrays
            case ast.Name(id=name):
                return values[name]
        raise AssertionError(f"unchecked node {ast.dump(node)}")

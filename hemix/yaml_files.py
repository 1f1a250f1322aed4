"""Read YAML files safely. A repeated key is refused, and every error is one line."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml

from hemix.errors import HemixError

__all__ = ["parse_yaml", "read_utf8", "read_yaml"]

_MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"
_NO_VALUE = (ValueError, LookupError, AttributeError, TypeError, ArithmeticError)
"""Errors of PyYAML for a scalar that is not a value of its type, such as 2026-02-30 or !!int x"""


class _Loader(yaml.SafeLoader):
    """A safe loader whose errors have the line of a wrong scalar."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except _NO_VALUE as problem:
            message = f"{getattr(node, 'value', '')!s} is not a valid value: {problem}"
            raise yaml.constructor.ConstructorError(
                None, None, message, node.start_mark
            ) from problem


def read_yaml(path: str | Path, error: type[HemixError]) -> Any:
    """Read a YAML file in UTF-8, with or without a byte order mark.

    Args:
        path: The file.
        error: The class to raise if the file cannot be read, is not YAML, or repeats a key.

    Returns:
        The content; None for an empty file.
    """
    return parse_yaml(read_utf8(path, error), str(path), error)


def read_utf8(path: str | Path, error: type[HemixError]) -> str:
    """Read a text file in UTF-8, without its byte order mark.

    Args:
        path: The file.
        error: The class to raise if the file cannot be read or is not UTF-8.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as problem:
        raise error(
            f"{path}: cannot be read: {problem.strerror or problem}",
            code="unreadable_file",
            field=str(path),
        ) from problem
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        byte = f"0x{content[problem.start]:02x}"
        raise error(
            f"{path}: cannot be read: line {line}: expected UTF-8 text, found byte {byte}",
            code="unreadable_file",
            field=str(path),
            hint="save it as UTF-8",
        ) from problem


def parse_yaml(text: str, source: str, error: type[HemixError], *, field: str | None = None) -> Any:
    """Parse a YAML document.

    Args:
        text: The document.
        source: Its name in messages: a file or an option.
        error: The class to raise if it is not YAML or repeats a key.
        field: Field of the error; None: ``source``.
    """
    field = source if field is None else field
    try:
        loader = _Loader(text.removeprefix("\ufeff"))
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            for problem in _repeated_keys(loader, node, "", set()):
                raise error(f"{source}: {problem}", code="repeated_key", field=field)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        reason = "nested too deeply" if isinstance(problem, RecursionError) else problem
        raise error(f"{source}: not YAML: {reason}", code="not_yaml", field=field) from problem


def _repeated_keys(loader: _Loader, node: yaml.Node, where: str, seen: set[int]) -> Iterator[str]:
    """Describe every repeated key of a mapping, before merge keys are resolved."""
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            yield from _repeated_keys(loader, value, f"{where}[{position}]", seen)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[Hashable, int] = {}
    for key, value in node.value:
        name = f"{where}.{key.value}" if where else str(key.value)
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode):
            value_of_key = key.value if key.tag in (_TEXT, _MERGE) else loader.construct_object(key)
            if value_of_key in lines:
                advice = "write <<: [*one, *other]" if key.tag == _MERGE else "remove one of them"
                yield f"{name}: repeated key (lines {lines[value_of_key]} and {line}); {advice}"
            lines.setdefault(value_of_key, line)
        yield from _repeated_keys(loader, value, name, seen)

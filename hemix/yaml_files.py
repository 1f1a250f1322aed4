"""YAML that people write, read safely: a key that stands twice is refused with both lines, whatever
is wrong is one line.
"""

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
"""What PyYAML raises for a scalar that is no value, such as 2026-02-30 or !!int x"""


class _Loader(yaml.SafeLoader):
    """Says the line of a scalar that is no value."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except _NO_VALUE as problem:
            what = f"{getattr(node, 'value', '')!s} is no value of its kind: {problem}"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark) from problem


def read_yaml(path: str | Path, error: type[HemixError]) -> Any:
    """The content of a YAML file in UTF-8, with or without a byte order mark; None for a file
    without content.

    Args:
        path: the file.
        error: raised, naming the file, where it cannot be read, is not YAML, or holds a key twice.
    """
    return parse_yaml(read_utf8(path, error), str(path), error)


def read_utf8(path: str | Path, error: type[HemixError]) -> str:
    """The text of a file in UTF-8, without a byte order mark.

    Args:
        path: the file.
        error: raised, naming the file and what is wrong.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem.strerror or problem}") from problem
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        found = f"found byte 0x{content[problem.start]:02x}"
        raise error(
            f"{path}: cannot be read: line {line}: expected UTF-8 text, {found}; save it as UTF-8"
        ) from problem


def parse_yaml(text: str, origin: str, error: type[HemixError]) -> Any:
    """The value of one YAML document.

    Args:
        text: the document.
        origin: what messages call it, a file or an option.
        error: raised where it is not YAML or holds a key twice.
    """
    try:
        loader = _Loader(text.removeprefix("\ufeff"))
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            for problem in _repeated_keys(loader, node, "", set()):
                raise error(f"{origin}: {problem}")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        raise error(f"{origin}: not YAML: {_one_line(problem)}") from problem


def _one_line(problem: Exception) -> str:
    return (
        "nested too deeply"
        if isinstance(problem, RecursionError)
        else " ".join(str(problem).split())
    )


def _repeated_keys(loader: _Loader, node: yaml.Node, where: str, seen: set[int]) -> Iterator[str]:
    """What is wrong with every key that stands twice in one mapping, before merge keys are
    followed.
    """
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
            known = key.value if key.tag in (_TEXT, _MERGE) else loader.construct_object(key)
            if known in lines:
                keep = "write <<: [*one, *other]" if key.tag == _MERGE else "keep one of them"
                yield f"{name}: the key stands twice (lines {lines[known]} and {line}); {keep}"
            lines.setdefault(known, line)
        yield from _repeated_keys(loader, value, name, seen)

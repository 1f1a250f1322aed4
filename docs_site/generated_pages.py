"""Hooks of MkDocs: the reference of commands and of Python is made from the code."""

from __future__ import annotations

import inspect
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import hemix
from hemix.cli.app import app

COMMAND_LINE, PYTHON = "reference/command-line.md", "reference/python.md"

_OUTSIDE = re.compile(r"\]\(((?:\.\./)+)((?:README|CHANGELOG|CONTRIBUTING)\.md)(?:#[^)]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the decisions in the navigation."""
    root = Path(config.docs_dir)
    pages = sorted((root / "project" / "decisions").glob("*.md"))
    [project] = [entry["Project"] for entry in config.nav if "Project" in entry]
    [decisions] = [entry for entry in project if "Decisions" in entry]
    decisions["Decisions"] = [page.relative_to(root).as_posix() for page in pages]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the two pages."""
    pages = {COMMAND_LINE: command_line_page(), PYTHON: python_page()}
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links to the README of the repository lead to the first page of the site."""
    home = posixpath.relpath("README.md", posixpath.dirname(page.file.src_uri))
    return _OUTSIDE.sub(f"]({home})", markdown)


def command_line_page() -> str:
    """Return the reference of all commands, as Markdown."""
    intro = "Every command ends with exit code 0, or with that of its [error](errors.md)."
    parts = ["# Command line", f"{intro} `--help` prints what stands here."]
    for words, command in _commands(typer.main.get_command(app)):
        parts.append(f"## hemix {words}")
        parts.append((command.help or "").strip())
        parts.append(f"```\n{command.epilog.removeprefix('Example: ')}\n```")
        rows = [_row(parameter) for parameter in command.params if parameter.name != "help"]
        if rows:
            head = ["| option | meaning | default |", "| --- | --- | --- |"]
            parts.append("\n".join([*head, *rows]))
    return "\n\n".join(parts) + "\n"


def _commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from _commands(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


def _row(parameter: Any) -> str:
    """A row of the table of options."""
    is_option = parameter.param_type_name == "option"
    shown_names = parameter.opts if is_option else [parameter.name.upper()]
    names = ", ".join(f"`{name}`" for name in shown_names)
    meaning = _cell(parameter.help or "")
    choices = list(_choices(parameter.type_descriptor.annotation))
    if choices:
        meaning += " One of " + ", ".join(f"`{choice}`" for choice in choices) + "."
    default, shown = parameter.default, parameter.show_default
    if parameter.required:
        text = "required"
    elif isinstance(shown, str):
        text = _cell(shown)
    else:
        text = "" if default in (None, False, []) else _cell(f"`{default}`")
    return f"| {names} | {meaning} | {text} |"


def _choices(kind: Any) -> Iterator[str]:
    """The values of a Literal, also inside of unions and lists."""
    if get_origin(kind) is Literal:
        yield from map(str, get_args(kind))
    else:
        for part in get_args(kind):
            yield from _choices(part)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def python_page() -> str:
    """Return the reference of all names of the package, as Markdown for mkdocstrings."""
    intro = "Everything here is a name of the package `hemix`. The functions mirror the "
    parts = ["# Python", f"{intro}[commands](command-line.md)."]
    functions, classes = list[str](), list[str]()
    for name in hemix.__all__:
        value = getattr(hemix, name)
        path = f"{value.__module__}.{value.__qualname__}"
        (classes if inspect.isclass(value) else functions).append(f"::: {path}")
    return "\n\n".join([*parts, *functions, *classes]) + "\n"

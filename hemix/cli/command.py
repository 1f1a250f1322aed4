"""Commands whose flags are the fields of a dataclass.

A field is annotated with ``Annotated[T, typer.Option(...)]`` or ``typer.Argument(...)``; a default
of the field is the default of the flag.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, get_type_hints

import typer

__all__ = ["add_command", "given_values", "with_signature"]

Function = TypeVar("Function", bound=Callable[..., None])


def add_command(
    app: typer.Typer, *, panel: str, example: str, name: str | None = None
) -> Callable[[Function], Function]:
    """Return a decorator that adds a function of a dataclass of flags as a command.

    Args:
        app: What gets the command.
        panel: Heading of the commands in the help.
        example: A command line that the help shows.
        name: Name of the command; None: that of the function.
    """

    def decorate(function: Function) -> Function:
        register = app.command(name=name, rich_help_panel=panel, epilog=f"Example: {example}")
        register(with_signature(function))
        return function

    return decorate


def with_signature(function: Callable[..., None]) -> Callable[..., None]:
    """Return a function with a keyword argument for each flag.

    Args:
        function: Its first parameter is a dataclass of flags; the others stay, such as a
            ``typer.Context``.
    """
    first, *others = inspect.signature(function).parameters
    hints = get_type_hints(function, include_extras=True)
    kind = hints[first]
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name in others
    ] + _flag_parameters(kind)

    def call(**values: Any) -> None:
        rest = {name: values.pop(name) for name in others}
        function(kind(**values), **rest)

    call.__name__, call.__doc__ = function.__name__, function.__doc__
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def _flag_parameters(kind: Any) -> list[inspect.Parameter]:
    """Return a keyword parameter for each field of a dataclass."""
    hints = get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty
            if field.default is dataclasses.MISSING
            else field.default,
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(kind)
    ]


def given_values(context: typer.Context, names: Iterable[str]) -> dict[str, Any]:
    """Return the values of the flags that the command line names, without those at their defaults.

    Args:
        context: The context of the command.
        names: Parameters of the command.
    """
    sources = {name: context.get_parameter_source(name) for name in names}
    return {
        name: context.params[name]
        for name, source in sources.items()
        if source is not None and source.name == "COMMANDLINE"
    }

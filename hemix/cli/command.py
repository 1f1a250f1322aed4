"""Commands whose flags are the fields of a dataclass, and of a pydantic model.

A field of the dataclass is annotated with ``Annotated[T, typer.Option(...)]`` or
``typer.Argument(...)``; a default of the field is the default of the flag. Fields of a pydantic
model need no annotation: :func:`setting_flags` makes flags of them. tyro and cyclopts do this by
themselves, but are a second command line beside Typer, with other help and other messages.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeVar, get_type_hints

import typer
from pydantic.fields import FieldInfo

from hemix.serving.config import DefaultText

__all__ = ["add_command", "given_values", "setting_flags", "with_signature"]

Function = TypeVar("Function", bound=Callable[..., None])


def add_command(
    app: typer.Typer,
    *,
    panel: str,
    example: str,
    name: str | None = None,
    settings: Mapping[str, FieldInfo] | None = None,
) -> Callable[[Function], Function]:
    """Return a decorator that adds a function of a dataclass of flags as a command.

    Args:
        app: What gets the command.
        panel: Heading of the commands in the help.
        example: A command line that the help shows.
        name: Name of the command; None: that of the function.
        settings: Fields of a pydantic model that are flags too. The function reads their values
            from its ``typer.Context``.
    """

    def decorate(function: Function) -> Function:
        register = app.command(name=name, rich_help_panel=panel, epilog=f"Example: {example}")
        register(with_signature(function, settings or {}))
        return function

    return decorate


def with_signature(
    function: Callable[..., None], settings: Mapping[str, FieldInfo]
) -> Callable[..., None]:
    """Return a function with a keyword argument for each flag.

    Args:
        function: Its first parameter is a dataclass of flags; the others stay, such as a
            ``typer.Context``.
        settings: Fields that are flags too.
    """
    first, *others = inspect.signature(function).parameters
    hints = get_type_hints(function, include_extras=True)
    kind = hints[first]
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name in others
    ] + _flag_parameters(kind)
    parameters += setting_flags(settings)

    def call(**values: Any) -> None:
        rest = {name: values.pop(name) for name in others}
        function(kind(**{name: values[name] for name in values if name not in settings}), **rest)

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


def setting_flags(settings: Mapping[str, FieldInfo]) -> list[inspect.Parameter]:
    """Return a keyword parameter for each field of a pydantic model.

    Name, type, default, bounds (``ge``, ``le``) and help (the description) are those of the field.

    Args:
        settings: Fields by name.
    """
    return [_setting_flag(name, field) for name, field in settings.items()]


def _setting_flag(name: str, field: FieldInfo) -> inspect.Parameter:
    bounds: dict[str, float | None] = {"ge": None, "le": None}
    shown: bool | str = True
    for constraint in field.metadata:
        for bound in bounds:
            bounds[bound] = getattr(constraint, bound, bounds[bound])
        if isinstance(constraint, DefaultText):
            shown = constraint.text or False
    option = typer.Option(
        f"--{name.replace('_', '-')}",
        min=bounds["ge"],
        max=bounds["le"],
        help=field.description,
        show_default=shown,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=field.default,
        annotation=Annotated[field.annotation, option],
    )


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

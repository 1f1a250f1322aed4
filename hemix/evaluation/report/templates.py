"""Page templates: HTML with escaped values and the style sheet in the page itself."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hemix.evaluation import wording

__all__ = ["render"]

_PACKAGE = "hemix.evaluation"


def render(template: str, *, package: str = _PACKAGE, **values: Any) -> str:
    """Fill in a page template; values are escaped unless they are Markup.

    Args:
        template: File name of the template.
        package: The package with the template in its ``templates`` folder; the template may extend
            those of this package.
        **values: What the template shows.

    Returns:
        The page.
    """
    return _environment(package).get_template(template).render(**values)


@cache
def _environment(package: str) -> Environment:
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader(name, "templates") for name in dict.fromkeys((package, _PACKAGE))]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(wording.FILTERS)
    style = files(_PACKAGE) / "templates" / "report.css"
    environment.globals["style"] = Markup(style.read_text(encoding="utf-8"))  # our own file
    return environment

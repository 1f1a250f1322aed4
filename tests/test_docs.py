"""What the docs promise to list, they list."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from hemix.config import BoostingSettings, TrainSettings
from hemix.models import find_model, model_names
from hemix.schema import History, Label, Roles, Schema, Split, Tables

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize(
    "part", [*(find_model(name).config for name in model_names()), TrainSettings, BoostingSettings]
)
def test_every_setting_is_explained(part: type[BaseModel]) -> None:
    text = (DOCS / "settings.md").read_text()
    assert [name for name in part.model_fields if f"`{name}`" not in text] == []


@pytest.mark.parametrize("part", [Schema, Tables, History, Label, Roles, Split])
def test_every_schema_key_is_explained(part: type[BaseModel]) -> None:
    text = (DOCS / "schema.md").read_text()
    keys = [field.alias or name for name, field in part.model_fields.items()]
    assert [key for key in keys if key not in text and key != "schema_version"] == []


def test_the_readmes_schema_is_one() -> None:
    text = (DOCS.parent / "README.md").read_text()
    schema = Schema.parse(text.split("```yaml\n")[1].split("```")[0])
    assert schema.outputs == ("click", "order", "order_given_click")

"""The docs list every setting and schema key, and their links and paths exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from hemix.config import BoostingSettings, TrainSettings
from hemix.models import find_model, model_names
from hemix.schema import History, Label, Roles, Schema, Split, Tables

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]


@pytest.mark.parametrize(
    "section",
    [*(find_model(name).config for name in model_names()), TrainSettings, BoostingSettings],
)
def test_every_setting_is_explained(section: type[BaseModel]) -> None:
    text = (DOCS / "reference" / "settings.md").read_text()
    assert [name for name in section.model_fields if f"`{name}`" not in text] == []


@pytest.mark.parametrize("section", [Schema, Tables, History, Label, Roles, Split])
def test_every_schema_key_is_explained(section: type[BaseModel]) -> None:
    text = (DOCS / "reference" / "schema.md").read_text()
    keys = [field.alias or name for name, field in section.model_fields.items()]
    assert [key for key in keys if key not in text and key != "schema_version"] == []


def test_the_readmes_schema_is_one() -> None:
    text = (ROOT / "README.md").read_text()
    schema = Schema.parse(text.split("```yaml\n")[1].split("```")[0])
    assert schema.outputs == ("click", "order", "order_given_click")


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_heading_of_the_repository(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_docs_path_named_in_code_and_pages_exists() -> None:
    files = [*PAGES, ROOT / "Makefile", ROOT / "pyproject.toml"]
    for folder in ("hemix", "examples", "deploy"):
        files += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml")]
    missing = [
        (file.relative_to(ROOT), path)
        for file in files
        for path in re.findall(r"(?<![\w/.])docs/[\w./-]*\w", file.read_text())
        if not (ROOT / path).exists()
    ]
    assert missing == []


def test_the_index_lists_every_page() -> None:
    index = DOCS / "README.md"
    links = {(DOCS / link).resolve() for link in re.findall(r"\]\(([^)#\s]+)\)", prose(index))}
    assert [page for page in DOCS.rglob("*.md") if page != index and page not in links] == []

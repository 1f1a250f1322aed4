"""How runs and datasets look in Python's console and in notebooks."""

from __future__ import annotations

from pathlib import Path

from hemix import Dataset, Run
from hemix.representation import html_table, one_line


def test_facts_without_a_value_are_left_out_and_texts_are_escaped() -> None:
    facts = {"name": "a<b", "rows": 12_345, "size": None}
    assert one_line("Run", facts) == "Run(name=a<b, rows=12,345)"
    table = html_table("Run", facts)
    assert table.startswith("<table><caption>Run</caption>")
    assert "<td>a&lt;b</td>" in table and "<td>12,345</td>" in table and "size" not in table


def test_a_dataset_is_one_line_and_a_table(planted_data: Path) -> None:
    data = Dataset(planted_data)
    rows = {name: split["rows"] for name, split in data.manifest["splits"].items()}
    total = sum(rows.values())
    facts = f"name={data.schema.name}, rows={total:,}, partitions=8, folder={planted_data}"
    assert repr(data) == f"Dataset({facts})"
    assert all(
        f"<th>{name} rows</th><td>{count:,}</td>" in data._repr_html_()
        for name, count in rows.items()
    )


def test_a_run_is_one_line_and_a_table(rich_run: Path) -> None:
    run = Run.load(rich_run)
    settings = run.settings.model.model_dump()
    assert repr(run) == (
        f"Run(name={run.schema.name}, model={settings['name']}, size={settings['size']}, "
        f"folder={rich_run})"
    )
    assert f"<td>{rich_run}</td>" in run._repr_html_()

"""The README's promises, run as printed: the demo, and the examples."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


def hemix(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "hemix", *map(str, args)], capture_output=True, text=True)


def test_the_demo_end_to_end_and_again(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    first = hemix("demo", "--out", out, "--users", 200, "--days", 4)
    assert first.returncode == 0, first.stderr
    assert "test click AUC" in first.stdout
    assert "popularity alone" in first.stdout
    report = (out / "report.html").read_text()
    assert "HeMix" in report and "http" not in report.replace("http://www.w3.org", "").lower().split("<style")[0]
    click = json.loads((out / "metrics.json").read_text())["split"]["test"]["tasks"]["click"]
    assert click["auc_ci95"][0] < click["auc"] < click["auc_ci95"][1]
    assert click["popularity_auc"] < click["oracle_auc"]
    again = hemix("demo", "--out", out, "--users", 200, "--days", 4)
    assert again.returncode == 0
    assert again.stdout == first.stdout, "what is done is left as it is"
    other = hemix("demo", "--out", out, "--users", 300, "--days", 4)
    assert other.returncode == 2
    assert "name a new folder" in other.stderr


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_every_example_runs(example: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(example)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()

"""The README's promises, run as printed: the demo, and the examples."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.run import Command, refused

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parent.parent


def test_the_demo_end_to_end_and_again(hemix: Command, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    code, first, err = hemix("demo", "--out", out, "--users", 200, "--days", 4)
    assert code == 0, err
    assert "resume" not in err
    assert "test click AUC" in first
    assert "popularity alone" in first
    report = (out / "report.html").read_text()
    assert (
        "HeMix" in report
        and "http" not in report.replace("http://www.w3.org", "").lower().split("<style")[0]
    )
    click = json.loads((out / "metrics.json").read_text())["split"]["test"]["tasks"]["click"]
    assert click["auc_ci95"][0] < click["auc"] < click["auc_ci95"][1]
    assert click["popularity_auc"] < click["oracle_auc"]
    code, again, err = hemix("demo", "--out", out, "--users", 200, "--days", 4)
    assert code == 0, err
    assert again == first, "what is done is left as it is"
    line = refused(hemix("demo", "--out", out, "--users", 300, "--days", 4))
    assert "name a new folder" in line


SCRIPTS = sorted(path for path in (ROOT / "examples").glob("*.py") if path.stem != "two_towers")
"""two_towers.py is a model for --import: tests/models/test_registry.py takes it all the way"""


@pytest.mark.parametrize("example", SCRIPTS, ids=lambda path: path.stem)
def test_every_example_runs(example: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(example)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    if example.stem == "loop":
        check_loop(tmp_path / "example_loop", done.stdout)


def check_loop(folder: Path, printed: str) -> None:
    """What the loop measures is written and said; the model that is blind for positions has seen
    none, in old rows or in new ones.
    """
    loop = json.loads((folder / "loop.json").read_text())
    assert set(loop["arms"]) == {"first", "own", "blind", "policy"}
    for arm in loop["arms"].values():
        assert (
            arm["pcoc"] > 0
            and arm["pcoc_top"] > 0
            and arm["items"] > 1
            and 0 < arm["distinct_share"] <= 1
        )
        assert "new_place_share" in arm
    assert {("own", "blind"), ("first", "own")} <= {
        (e["arm"], e["against"]) for e in loop["effects"]
    }
    assert "PCOC" in printed and "PV_CTR of own against blind" in printed and "3 train" in printed
    for name, seen in (("own", True), ("blind", False)):
        for part in ("0", "1"):
            positions = pq.read_table(
                folder / f"{name}-logs" / "impressions" / f"{part}.parquet", columns=["position"]
            )["position"]
            assert (len(set(positions.to_pylist())) > 1) is seen

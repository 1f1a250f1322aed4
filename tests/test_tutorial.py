"""docs/guide/tutorial.md, typed as printed in a smaller city."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parent.parent
SMALLER = {
    "--users 2000 --days 8": "--users 80 --days 3",
    "--users 300 --days 3": "--users 30 --days 1",
}
LAST_WORDS = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"
"""No server outlives the script, however it ends"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_the_tutorial_as_printed(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "guide" / "tutorial.md").read_text()
    script = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    for printed, smaller in {**SMALLER, "8081": str(free_port()), "8082": str(free_port())}.items():
        assert printed in script
        script = script.replace(printed, smaller)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "hemix").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hemix "$@"\n')
    (tmp_path / "bin" / "hemix").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    ended = subprocess.run(
        [
            "timeout",
            "--kill-after=5",
            "280",
            "bash",
            "-euo",
            "pipefail",
            "-c",
            f"{LAST_WORDS}\n{script}",
        ],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    experiment = json.loads((tmp_path / "experiment" / "experiment.json").read_text())
    assert (
        set(experiment["arms"]) == {"hemix", "dlrm", "oracle", "popularity"}
        and experiment["paused"] == {}
    )
    rows = pq.read_table(tmp_path / "served" / "impressions")
    assert rows.num_rows > 0 and {0, 1} <= set(rows["click"].to_pylist())

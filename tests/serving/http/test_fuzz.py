"""Our own OpenAPI, fuzzed: no answer is a defect, and every answer is as described."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving.http.process import hemix_server

TOKEN = "admin-token-0123456789"


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("seed", [7, 8])  # more cases of one seed cost more each
def test_schemathesis_finds_no_5xx_and_no_undescribed_answer(
    rich_run: Path, tmp_path: Path, seed: int
) -> None:
    """2,000 cases, half of them of each seed."""
    registry = tmp_path / "registry"
    shutil.copytree(rich_run, registry / "rich" / "1")
    (tmp_path / "token").write_text(TOKEN)
    arguments = [registry, "--store", f"sqlite:///{tmp_path / 'e.db'}"]
    arguments += ["--log", tmp_path / "served", "--admin-token-file", tmp_path / "token"]
    with hemix_server(arguments, tmp_path / "log") as server:
        fuzz = [
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{server.url}/openapi.json",
        ]
        fuzz += [
            "--checks",
            "not_a_server_error,status_code_conformance,response_schema_conformance,"
            "content_type_conformance",
            "--mode",
            "all",
            "--phases",
            "coverage,fuzzing",
            "-n",
            "100",
            "--seed",
            str(seed),
        ]
        fuzz += ["-H", f"Authorization: Bearer {TOKEN}", "--no-color"]
        done = subprocess.run(fuzz, capture_output=True, text=True, cwd=tmp_path, timeout=1400)
        assert done.returncode == 0, done.stdout[-4000:]
        generated = re.search(r"([\d,]+) generated", done.stdout)
        assert generated is not None, done.stdout[-1000:]
        assert int(generated[1].replace(",", "")) >= 1_000, done.stdout[-1000:]
        assert not [line for line in server.logs() if line.get("status", 0) >= 500]
        assert server.rank(["i1"]).status == 200

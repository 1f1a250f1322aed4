"""The flags of studies and experiments become their configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hemix import AblateConfig, CompareConfig, ExperimentPlan, ScaleConfig, StudyOptions, api
from hemix.errors import UsageError
from tests.cli.run import Command

Call = tuple[tuple[Any, ...], dict[str, Any]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """The calls of the API, which do nothing."""
    calls: list[Call] = []

    def record(*args: Any, **options: Any) -> dict[str, Any]:
        calls.append((args, options))
        raise KeyboardInterrupt

    for name in ("compare", "ablate", "scale", "experiment"):
        monkeypatch.setattr(api, name, record)
    return calls


def test_compare(hemix: Command, calls: list[Call]) -> None:
    flags = "--models hemix,dlrm --seeds 2 --search none --primary hemix:dlrm --set train.epochs=2"
    hemix(
        *[
            "compare",
            "--data",
            "a",
            "--data",
            "b",
            "--out",
            "study",
            "--evaluate-test",
            "--jobs",
            "3",
            "--threads",
            "2",
        ],
        *flags.split(),
    )
    [((data, out, config), options)] = calls
    assert (data, out) == ([Path("a"), Path("b")], Path("study"))
    assert config == CompareConfig(
        models=["hemix", "dlrm"],
        seeds=2,
        search=None,
        primary=["hemix:dlrm"],
        settings=["train.epochs=2"],
        evaluate_test=True,
    )
    assert isinstance(options["options"], StudyOptions)
    assert (options["options"].jobs, options["options"].threads) == (3, 2)


def test_ablate(hemix: Command, calls: list[Call]) -> None:
    hemix(*["ablate", "--data", "a", "--out", "study", "--variants", "no_products,pre_norm"])
    [((_, _, config), _)] = calls
    assert config == AblateConfig(variants=["no_products", "pre_norm"])


@pytest.mark.parametrize(
    ("text", "lengths"), [(None, None), ("", []), ("10,300", [10, 300]), ("10,", [10])]
)
def test_scale(
    hemix: Command, calls: list[Call], text: str | None, lengths: list[int] | None
) -> None:
    flags = [] if text is None else ["--lengths", text]
    hemix(*["scale", "--data", "a", "--out", "study", "--sizes", "width_8"], *flags)
    [((_, _, config), _)] = calls
    assert config == ScaleConfig(sizes=["width_8"], lengths=lengths)


def test_experiment(hemix: Command, calls: list[Call], tmp_path: Path) -> None:
    (tmp_path / "token").write_text(" secret-0123456789\n")
    arms = ["--arm", "a=oracle", "--arm", "b=http://127.0.0.1:1/x?y=z"]
    flags = [
        "--recall-size",
        "130",
        "--arm-timeout",
        "2.5",
        "--design",
        "split",
        "--seed",
        "4",
        "--first-user",
        "7",
    ]
    paths = ["--logs", "l", "--out", "exp", "--token-file", tmp_path / "token"]
    hemix("experiment", *arms, *flags, *paths)
    [((plan, out), options)] = calls
    assert out == Path("exp")
    assert plan == ExperimentPlan(
        arms={"a": "oracle", "b": "http://127.0.0.1:1/x?y=z"},
        logs=Path("l"),
        first_user=7,
        design="split",
        seed=4,
        recall_size=130,
    )
    assert (options["token"], options["arm_timeout"]) == ("secret-0123456789", 2.5)


def test_a_file_without_a_token_is_refused(
    hemix: Command, calls: list[Call], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("short")
    flags = ["--arm", "a=oracle", "--logs", "l", "--out", "exp", "--token-file"]
    for file in ("token", "nowhere"):
        code, _, stderr = hemix("experiment", *flags, tmp_path / file)
        assert code == UsageError.exit_code and f"--token-file {tmp_path / file}" in stderr
    assert calls == []

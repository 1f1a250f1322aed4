"""Settings: who overrides whom, what is refused and by which name."""

from __future__ import annotations

from pathlib import Path

import pytest

from hemix.config import TrainSettings
from hemix.errors import SettingsError
from hemix.models.hemix_config import HeMixConfig
from hemix.models.registry import find_model
from hemix.settings import RENAMED_SETTINGS, Settings, build_settings
from tests.refusals import raises

SIZES = HeMixConfig.sizes


def config(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_each_step_overrides_the_one_before(tmp_path: Path) -> None:
    """token_width: 32 by default, 64 by size base, 96 by config, 128 by --set."""
    assert build_settings().model.token_width == 32
    file = config(tmp_path, "model: {size: base}")
    assert build_settings(config=file).model.token_width == 64
    file = config(tmp_path, "model: {size: base, token_width: 96}\ntrain: {seed: 1, epochs: 5}")
    chosen = build_settings(config=file)
    assert (
        chosen.model.token_width,
        chosen.model.layers,
        chosen.train.seed,
        chosen.train.epochs,
    ) == (96, 3, 1, 5)
    assert build_settings(config=file, overrides=["model.token_width=128"]).model.token_width == 128
    assert build_settings(config=file, seed=2).train.seed == 2
    assert build_settings(config=file, seed=2, overrides=["train.seed=3"]).train.seed == 3
    assert (
        build_settings(config=file, seed=2, overrides=["train.seed=3", "train.seed=4"]).train.seed
        == 4
    )
    assert build_settings(config=file, seed=0).train.seed == 0, "a flag of 0 is a flag"


def test_a_size_replaces_all_dimensions_of_a_full_settings_file(
    tmp_path: Path,
) -> None:
    file = config(
        tmp_path,
        build_settings(overrides={"train.epochs": 7, "model.pooling": "flatten"}).to_yaml(),
    )
    for chosen in (
        build_settings(config=file, size="base"),
        build_settings(config=file, overrides=["model.size=base"]),
    ):
        assert {name: getattr(chosen.model, name) for name in SIZES["base"]} == SIZES["base"]
        assert (chosen.model.size, chosen.train.epochs, chosen.model.pooling) == (
            "base",
            7,
            "flatten",
        )
    with_width = build_settings(config=file, size="base", overrides=["model.token_width=128"])
    assert (with_width.model.token_width, with_width.model.layers) == (128, 3)


@pytest.mark.parametrize("size", sorted(SIZES))
def test_every_size_is_what_it_says(size: str) -> None:
    model = build_settings(size=size).model
    assert {name: getattr(model, name) for name in SIZES[size]} == SIZES[size]


def test_scientific_notation_is_a_number(tmp_path: Path) -> None:
    assert (
        build_settings(overrides=["train.dense_learning_rate=1e-3"]).train.dense_learning_rate
        == 0.001
    )
    assert (
        build_settings(overrides=["train.table_learning_rate=2E-2"]).train.table_learning_rate
        == 0.02
    )
    assert build_settings(overrides=["train.batch_size=1e3"]).train.batch_size == 1000
    assert (
        build_settings(
            config=config(tmp_path, "train: {dense_learning_rate: 1e-3}")
        ).train.dense_learning_rate
        == 0.001
    )
    assert build_settings(overrides=["train.device=cuda:0"]).train.device == "cuda:0"
    assert build_settings(overrides=["model.time_encoding=none"]).model.time_encoding == "none"


@pytest.mark.parametrize(
    ("override", "code", "field", "values"),
    [
        ("train.epcohs=1", "unknown_setting", "train.epcohs", ["did you mean epochs?"]),
        ("trian.epochs=1", "unknown_setting", "trian", ["did you mean train?"]),
        ("epochs=1", None, "epochs", []),
        ("train.epochs", None, "--set", ["train.epochs"]),
        ("train.epochs=0", None, "train.epochs", [0]),
        ("train.epochs=1.5", None, "train.epochs", [1.5]),
        ("train.epochs=many", None, "train.epochs", ["'many'"]),
        ("train.epochs=[1", "not_yaml", "--set", ["train.epochs=[1"]),
        ("train.dense_learning_rate=0", None, "train.dense_learning_rate", [0]),
        ("train.dense_learning_rate=.inf", None, "train.dense_learning_rate", ["inf"]),
        ("train.dense_learning_rate=.nan", None, "train.dense_learning_rate", ["nan"]),
        ("train.min_lr_factor=.nan", None, "train.min_lr_factor", ["nan"]),
        ("train.oov_dropout=1", None, "train.oov_dropout", [1]),
        ("model.dropout=.nan", None, "model.dropout", ["nan"]),
        ("model.time_encoding=young", None, "model.time_encoding", ["'young'"]),
        ("model.attention_heads=5", None, "model.attention_heads", ["token_width", 32, 5]),
        ("model.size=huge", None, "model.size", ["'huge'", "tiny, base, small, large"]),
        ("model.size=[tiny]", None, "model.size", ["['tiny']"]),
    ],
)
def test_a_refusal_names_the_setting(
    override: str, code: str | None, field: str, values: list[object]
) -> None:
    with raises(SettingsError, *values, code=code, field=field):
        build_settings(overrides=[override])


@pytest.mark.parametrize(
    ("text", "code", "field", "values"),
    [
        ("- 1", None, None, []),
        ("train", None, None, []),
        ("train: 5", None, None, []),
        ("train:", None, None, []),
        ("train: {epochs: [", "not_yaml", None, []),
        ("train: {epcohs: 1}", "unknown_setting", "train.epcohs", ["did you mean epochs?"]),
        ("train: {epochs: 0}", None, "train.epochs", [0]),
        ("serve: {port: 1}", "unknown_setting", "serve", ["model, train, boosting"]),
    ],
)
def test_a_refusal_names_the_file(
    tmp_path: Path, text: str, code: str | None, field: str | None, values: list[object]
) -> None:
    """None as the field stands for the file."""
    path = config(tmp_path, text)
    with raises(SettingsError, f"{path}: ", *values, code=code, field=field or path):
        build_settings(config=path)


@pytest.mark.parametrize(("old", "new"), RENAMED_SETTINGS.items())
def test_an_old_name_is_refused_in_one_line_that_names_the_new_one(
    tmp_path: Path, old: str, new: str
) -> None:
    section, _, name = old.partition(".")
    path = config(tmp_path, f"{section}: {{{name}: 1}}")
    for prefix, given in (("", {"overrides": [f"{old}=1"]}), (f"{path}: ", {"config": path})):
        with raises(SettingsError, f"{prefix}{old}: ", new, code="unknown_setting", field=old):
            build_settings(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(("old", "new"), RENAMED_SETTINGS.items())
def test_the_old_name_is_no_setting_and_the_new_one_is(old: str, new: str) -> None:
    sections = {"train": TrainSettings, "model": HeMixConfig}
    names = {f"{key}.{name}" for key, kind in sections.items() for name in kind.model_fields}
    assert old not in names and new in names


def test_a_model_that_lacks_a_setting_still_names_the_new_name_of_an_old_one() -> None:
    assert "time_encoding" not in find_model("dlrm").config.model_fields
    with raises(SettingsError, "model.time_encoding", code="unknown_setting", field="model.age"):
        build_settings(model="dlrm", overrides=["model.age=bias"])


def test_the_learning_rate_factor_is_at_most_one() -> None:
    assert build_settings(overrides=["train.min_lr_factor=1"]).train.min_lr_factor == 1
    for value in (-0.1, 1.1):
        with raises(SettingsError, field="train.min_lr_factor"):
            build_settings(overrides=[f"train.min_lr_factor={value}"])


@pytest.mark.parametrize("old", ["plain", "fused"])
def test_an_old_embedding_backend_is_refused_with_the_present_ones(old: str) -> None:
    with raises(SettingsError, "'torch'", "'fbgemm'", field="train.embedding_backend"):
        build_settings(overrides=[f"train.embedding_backend={old}"])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with raises(SettingsError, code="unreadable_file", field=tmp_path / "none.yaml"):
        build_settings(config=tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with raises(SettingsError, code="unreadable_file", field=tmp_path / "b.yaml"):
        build_settings(config=tmp_path / "b.yaml")
    assert build_settings(config=config(tmp_path, "")) == Settings()


def test_settings_yaml_reads_back(tmp_path: Path) -> None:
    chosen = build_settings(
        size="small",
        seed=9,
        overrides={
            "train.dense_learning_rate": 1e-5,
            "train.device": "cuda:1",
            "model.time_encoding": "none",
        },
    )
    assert build_settings(config=config(tmp_path, chosen.to_yaml())) == chosen
    assert build_settings(config=config(tmp_path, Settings().to_yaml())) == Settings()

"""Weight files: round trip, bytes that depend on the tensors alone, and refused damage."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hemix.errors import RunError, StorageError
from hemix.models import Ranker, build_model
from hemix.runs.weights import (
    DENSE_FILE,
    TABLES_FILE,
    load_tensors,
    load_weights,
    save_tensors,
    save_weights,
    sha256,
)
from hemix.settings import build_settings
from tests.batches import make_batch, make_spec
from tests.refusals import raises

SPEC = make_spec()


def model(seed: int = 0, **settings: object) -> Ranker:
    return build_model(
        SPEC, build_settings(overrides={f"model.{k}": v for k, v in settings.items()}).model, seed
    ).eval()


def test_loaded_weights_equal_the_saved_ones(tmp_path: Path) -> None:
    ours, theirs = model(0), model(1)
    batch = make_batch(SPEC)
    assert not torch.equal(ours(batch), theirs(batch))
    load_weights(tmp_path, theirs, save_weights(tmp_path, ours))
    assert torch.equal(ours(batch), theirs(batch))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(
        torch.equal(a, b)
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [DENSE_FILE, TABLES_FILE]


def test_tables_have_a_file_of_their_own(tmp_path: Path) -> None:
    save_weights(tmp_path, model())
    tables, dense = load_file(tmp_path / TABLES_FILE), load_file(tmp_path / DENSE_FILE)
    assert {name: tuple(t.shape) for name, t in tables.items()} == {
        name: (rows, 16) for name, rows in SPEC.tables.items()
    }
    assert not any(name.startswith("tables") for name in dense)
    assert len(dense) > 10


def test_the_same_tensors_give_the_same_bytes_and_digests(tmp_path: Path) -> None:
    digests = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        digests.append(save_weights(tmp_path / name, model(seed)))
    assert digests[0] == digests[1]
    assert set(digests[0].values()).isdisjoint(digests[2].values())
    for file in (DENSE_FILE, TABLES_FILE):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
        assert sha256(tmp_path / "a" / file) == digests[0][file]


def test_the_order_and_layout_of_tensors_do_not_matter(tmp_path: Path) -> None:
    x, y = torch.arange(6.0).reshape(2, 3), torch.arange(4)
    first = save_tensors(tmp_path / "a", {"x": x, "y": y})
    assert save_tensors(tmp_path / "b", {"y": y, "x": x.t().contiguous().t()}) == first
    assert save_tensors(tmp_path / "c", {"x": x, "y": y + 1}) != first
    loaded = load_tensors(tmp_path / "a", first)
    assert torch.equal(loaded["x"], x) and torch.equal(loaded["y"], y)


@pytest.mark.parametrize("file", [DENSE_FILE, TABLES_FILE])
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "missing"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, file: str, damage: str) -> None:
    digests = save_weights(tmp_path, model())
    path = tmp_path / file
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    else:
        content[-1] ^= 1
        path.write_bytes(
            {"flipped": bytes(content), "cut": bytes(content[:-10]), "empty": b""}[damage]
        )
    code = "missing_file" if damage == "missing" else "damaged_file"
    with raises(RunError, code=code, field=path):
        load_weights(tmp_path, model(), digests)


def test_a_file_of_another_format_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"not tensors at all")
    with raises(RunError, code="damaged_file", field=tmp_path / "x"):
        load_tensors(tmp_path / "x")


def test_another_shape_is_refused_by_tensor(tmp_path: Path) -> None:
    digests = save_weights(tmp_path, model())
    shapes = ((6, 8), (6, 16))
    with raises(RunError, tmp_path / TABLES_FILE, *shapes, code="wrong_shape", field="action"):
        load_weights(tmp_path, model(embedding_size=8), digests)
    with raises(RunError, tmp_path / DENSE_FILE, code="wrong_shape"):
        load_weights(tmp_path, model(tower_hidden=32), digests)


def test_a_missing_or_extra_tensor_is_refused_by_name(tmp_path: Path) -> None:
    save_weights(tmp_path, model())
    tables = load_file(tmp_path / TABLES_FILE)
    path = tmp_path / TABLES_FILE
    save_file({name: t for name, t in tables.items() if name != "brand"}, path)
    with raises(RunError, path, (12, 16), None, code="wrong_shape", field="brand"):
        load_weights(tmp_path, model(), {})
    save_file({**tables, "colour": torch.zeros(2, 16)}, path)
    with raises(RunError, path, None, (2, 16), code="wrong_shape", field="colour"):
        load_weights(tmp_path, model(), {})


def test_a_refused_file_leaves_the_model_unchanged(tmp_path: Path) -> None:
    digests = save_weights(tmp_path, model(0))
    ours = model(1)
    before = {name: t.clone() for name, t in ours.state_dict().items()}
    content = bytearray((tmp_path / TABLES_FILE).read_bytes())
    content[-1] ^= 1
    (tmp_path / TABLES_FILE).write_bytes(content)
    with pytest.raises(RunError):
        load_weights(tmp_path, ours, digests)
    assert all(torch.equal(t, before[name]) for name, t in ours.state_dict().items())


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with raises(StorageError, tmp_path / "nowhere") as caught:
        save_tensors(tmp_path / "nowhere" / "x", {"x": torch.zeros(1)})
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    (tmp_path / "old").mkdir()
    with raises(StorageError, tmp_path):
        save_tensors(tmp_path / "old", {"x": torch.zeros(1)})
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_file_that_outgrows_its_limit_names_the_systems_reason(tmp_path: Path) -> None:
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, unlimited[1]))
    try:
        with raises(StorageError, os.strerror(errno.EFBIG), field=tmp_path / ".x.part"):
            save_tensors(tmp_path / "x", {"x": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object) -> None:
        raise SafetensorError("Error while serializing")

    def reserve(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("hemix.runs.weights.save_file", write)
    monkeypatch.setattr(os, "posix_fallocate", reserve)
    with raises(StorageError, code="disk_full", field=tmp_path / ".x.part"):
        save_tensors(tmp_path / "x", {"x": torch.zeros(1)})
    assert not list(tmp_path.iterdir())

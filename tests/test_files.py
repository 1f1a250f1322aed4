"""Files and folders appear whole or not at all, whatever ends the writing."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hemix.errors import DataError, StorageError, UsageError
from hemix.files import new_folder, read_json, storage_errors, write_json, write_text
from tests.refusals import raises


class _OfTheBlock(Exception):
    pass


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def dead_process() -> int:
    """The id of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "out"
    with new_folder(out) as part:
        assert (part.parent, part.name[0]) == (out.parent, ".")
        (part / "file").write_text("x")
        assert not out.exists()
    assert (out / "file").read_text() == "x"
    assert names(out.parent) == ["out"]


def test_an_empty_folder_may_be_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with new_folder(out) as part:
        (part / "file").write_text("x")
    assert names(tmp_path) == ["out"]
    assert names(out) == ["file"]


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3), OSError("no number")], ids=repr
)
def test_nothing_appears_when_the_block_does_not_end(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, new_folder(tmp_path / "a" / "b" / "out") as part:
        (part / "deep").mkdir()
        (part / "deep" / "file").write_text("x")
        raise error
    assert raised.value is error
    assert names(tmp_path) == [], "neither the folder nor parents that were not there before"


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed_to_a_folder_empty_or_new(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "disk" / "target").mkdir(parents=True)
    else:
        (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "target")
    with new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("a")
    assert (tmp_path / "out").is_symlink() and (
        tmp_path / "disk" / "target" / "a"
    ).read_text() == "a"
    assert [path.name for path in tmp_path.rglob("*.part")] == []


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with raises(UsageError, tmp_path / "a", field="--out"), new_folder(tmp_path / "a"):
        pass


def test_parents_that_were_there_stay(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "a" / "b" / "out"):
        raise KeyboardInterrupt
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == []


def test_a_new_parent_that_another_uses_by_now_stays(tmp_path: Path) -> None:
    with pytest.raises(_OfTheBlock), new_folder(tmp_path / "a" / "out"):
        (tmp_path / "a" / "other").write_text("")
        raise _OfTheBlock
    assert names(tmp_path / "a") == ["other"]


def test_an_empty_out_stays_when_the_block_does_not_end(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(_OfTheBlock), new_folder(tmp_path / "out"):
        raise _OfTheBlock
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_existing_folder_is_not_changed(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "folder":
        out.mkdir()
    file = out / "mine" if kind == "folder" else out
    file.write_text("x")
    with (
        raises(UsageError, out, code="out_exists", field="--out"),
        new_folder(out),
    ):
        raise AssertionError("the block must not run")
    assert file.read_text() == "x"
    assert names(tmp_path) == ["out"]


def test_leftovers_of_ended_processes_are_removed_and_those_of_running_ones_are_not(
    tmp_path: Path, dead_process: int
) -> None:
    for name in (
        f".out.{dead_process}.part",
        ".out.1.part",
        f".other.{dead_process}.part",
        ".out.mine.part",
    ):
        (tmp_path / name / "deep").mkdir(parents=True)
    with new_folder(tmp_path / "out"):
        pass
    assert names(tmp_path) == sorted(
        [f".other.{dead_process}.part", ".out.1.part", ".out.mine.part", "out"]
    )


def test_brackets_in_a_name_are_literal(tmp_path: Path, dead_process: int) -> None:
    for name in ("o[u]t", "out"):
        (tmp_path / f".{name}.{dead_process}.part").mkdir()
    with new_folder(tmp_path / "o[u]t"):
        pass
    assert names(tmp_path) == sorted([f".out.{dead_process}.part", "o[u]t"])


def test_leftovers_of_an_ended_process_with_the_same_id_are_replaced(tmp_path: Path) -> None:
    """In a container a process often has the number that its killed predecessor had."""
    left = tmp_path / f".out.{os.getpid()}.part"
    left.mkdir()
    (left / "stale").write_text("")
    with new_folder(tmp_path / "out") as part:
        (part / "file").write_text("")
    assert names(tmp_path / "out") == ["file"]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "disk_full"),
        (errno.EDQUOT, "disk_full"),
        (errno.EROFS, "read_only"),
        (errno.EACCES, "permission_denied"),
        (errno.EPERM, "permission_denied"),
    ],
)
def test_storage_errors_have_the_path(tmp_path: Path, number: int, code: str) -> None:
    out = tmp_path / "a" / "out"
    with raises(StorageError, "the/file", code=code, field="the/file"), storage_errors("out"):
        raise OSError(number, "whatever", "the/file")
    with raises(StorageError, "out", code=code, field="out"), storage_errors("out"):
        raise OSError(number, "whatever")
    with raises(StorageError, out, code=code, field=out), new_folder(out):
        raise OSError(number, "whatever")
    assert names(tmp_path) == []


def test_a_parent_that_is_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with raises(StorageError, tmp_path / "file") as caught, new_folder(tmp_path / "file" / "out"):
        raise AssertionError("the block must not run")
    assert isinstance(caught.value.__cause__, NotADirectoryError | FileExistsError)
    assert (tmp_path / "file").read_text() == "x"


def test_other_errors_are_not_converted() -> None:
    strange = OSError("strange")
    with pytest.raises(OSError) as caught, storage_errors("out"):
        raise strange
    assert caught.value is strange


def test_json_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": [1, 2.5, None, "ä"]})
    assert json.loads(path.read_text()) == {"a": [1, 2.5, None, "ä"]}
    assert "ä" in path.read_text()
    assert read_json(path, DataError) == {"a": [1, 2.5, None, "ä"]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_refuses_what_is_not_json_and_keeps_the_file(tmp_path: Path, value: float) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        write_json(path, {"a": {"b": [value]}})
    assert read_json(path, DataError) == {"a": 1}
    assert names(tmp_path) == ["x.json"]


def test_a_text_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.txt"
    write_text(path, "old")

    def full(part: Path, *_: object) -> Path:
        raise OSError(errno.ENOSPC, "no space", str(part))

    monkeypatch.setattr(Path, "replace", full)
    with raises(StorageError, code="disk_full"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x.txt"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "missing"),
        (b"{", "damaged: "),
        (b"[1]", "damaged: expected a JSON object"),
        (b"\xff", "damaged: "),
    ],
)
def test_json_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_json(path, DataError)
    assert str(error.value).startswith(f"{path}: {says}")


def test_a_path_that_is_not_utf8(tmp_path: Path) -> None:
    """Parquet and JSON files could not be written below it."""
    out = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(UsageError) as error, new_folder(out):
        raise AssertionError
    str(error.value).encode()  # can be printed
    assert names(tmp_path) == []

"""Files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from samg_fast.errors import FileError
from samg_fast.files import replacing, write_bytes, write_text


def test_writes_text_and_bytes(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "größer")
    write_bytes(tmp_path / "a.txt", b"new")
    assert (tmp_path / "a.txt").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_the_temporary_name_keeps_the_suffix(tmp_path: Path) -> None:
    with replacing(tmp_path / "clip.mp4") as temporary:
        assert temporary.suffix == ".mp4"
        assert temporary.parent == tmp_path
        temporary.touch()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"cannot write .*nowhere.*a\.txt: No such file or directory"):
        write_text(tmp_path / "nowhere" / "a.txt", "x")


def test_a_folder_with_the_file_s_name_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(FileError, match=r"cannot write .*a\.txt"):
        write_text(tmp_path / "a.txt", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("name", ["", ".", "/", "a\0b"])
def test_an_invalid_file_name_is_an_error(name: str) -> None:
    with pytest.raises(FileError, match=r"cannot write .*: it is not the name of a file"):
        write_text(name, "x")

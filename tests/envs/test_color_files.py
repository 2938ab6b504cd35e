"""Colour sets as the benchmark publishes them: read without PyTorch, and without running what a file says."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samg_fast.envs.settings import Colors, load_colors, open_colors
from samg_fast.errors import FileError

SETS = [
    {name: np.round(np.random.default_rng(index).random((4, 3))[row], 3) for row, name in enumerate(Colors.__slots__)}
    for index in range(5)
]
WANTED = tuple(Colors(**{name: tuple(color.tolist()) for name, color in each.items()}) for each in SETS)


def old(value: Any, protocol: int = 2) -> bytes:
    """Return a file as `torch.save` wrote it in 2018: pickles one after the other, the storages' keys last."""
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [0x1950A86A20F9469CFC6C, 1001, machine, value, []]
    return b"".join(pickle.dumps(each, protocol) for each in parts)


def of_numpy_1(content: bytes) -> bytes:
    """Rename NumPy's module as NumPy 1 called it, whose name is as long but for a newline's worth."""
    return content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


@pytest.mark.parametrize("name", ["color_easy", "color_hard"])
def test_the_benchmark_s_folder_works_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / "color_easy.pt").write_bytes(of_numpy_1(old(SETS)))
    (tmp_path / "color_hard.pt").write_bytes(of_numpy_1(old(SETS[::-1])))
    assert open_colors(tmp_path, name) == (WANTED if name == "color_easy" else WANTED[::-1])
    assert open_colors(tmp_path, "original") == WANTED
    assert load_colors(tmp_path / f"{name}.pt") == open_colors(tmp_path, name)


def test_every_way_they_may_be_kept(tmp_path: Path) -> None:
    """Numbered sets, sets of lists, numbers beyond 1, which MuJoCo clips too, and PyTorch's later format."""
    path = tmp_path / "colors.pt"
    path.write_bytes(old(dict(enumerate(SETS))))
    assert load_colors(path) == WANTED
    path.write_bytes(old(tuple({name: color.tolist() for name, color in each.items()} for each in SETS)))
    assert load_colors(path) == WANTED
    path.write_bytes(old([{"grid_rgb2": np.array([0.5, 1.1, -0.1])}]))
    assert load_colors(path) == (Colors(grid_rgb2=(0.5, 1.0, 0.0)),)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(SETS, 2))
        archive.writestr("archive/version", "3")
    assert load_colors(path) == WANTED


def test_files_that_pytorch_writes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    for new in (False, True):
        torch.save(SETS, tmp_path / "colors.pt", _use_new_zipfile_serialization=new)
        assert load_colors(tmp_path / "colors.pt") == WANTED
    torch.save([{"grid_rgb1": torch.zeros(3)}], tmp_path / "colors.pt")
    with pytest.raises(FileError, match=r"colors\.pt: it holds (PyTorch's tensors|torch\S+), expected numbers"):
        load_colors(tmp_path / "colors.pt")


class Shouts:
    """Pickled, it would print when it is read."""

    def __reduce__(self) -> Any:
        return print, ("read",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            old([Shouts()]),
            r"cannot read the colours .*: it holds __builtin__\.print, expected numbers and NumPy arrays alone",
        ),
        (pickle.dumps(SETS), "not a file of torch.save with plain values: it does not begin as"),
        (b"", "not a file of torch.save"),
        (old(SETS)[:400], "not a file of torch.save"),
        (old([]), "are not a list with at least one colour set"),
        (old(3), "are not a list with at least one colour set"),
        (old([{"grid": np.zeros(3)}]), "entry 0 of .* has the unknown key 'grid'"),
        (old([{"grid_rgb1": np.zeros(4)}]), "grid_rgb1 must be three numbers between 0 and 1"),
    ],
)
def test_what_is_no_colour_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    (tmp_path / "color_easy.pt").write_bytes(content)
    with pytest.raises(FileError, match=message):
        open_colors(tmp_path, "color_easy")
    assert capsys.readouterr().out == ""


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"cannot read the colours .*color_hard\.pt: No such file"):
        open_colors(tmp_path, "color_hard")

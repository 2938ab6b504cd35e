"""Reading checkpoints: files that are not checkpoints, and checkpoints that do not fit a model."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from safetensors.torch import save_file  # noqa: E402

from samg_fast.errors import CheckpointError  # noqa: E402
from samg_fast.export.checkpoints import load_into, load_state_dict  # noqa: E402

WEIGHTS = {"weight": torch.arange(12.0).reshape(3, 4), "bias": torch.tensor([1.0, -2.0, 3.0])}


class Code:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.mark}",)


def saved(path: Path, content: object, **options: object) -> Path:
    torch.save(content, path, **options)
    return path


def assert_weights(found: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(WEIGHTS)
    for key, value in found.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, WEIGHTS[key], rtol=0, atol=0)


class TestLoadStateDict:
    @pytest.mark.parametrize("legacy", [False, True])
    @pytest.mark.parametrize("wrapped", [False, True])
    def test_reads_what_torch_saves(self, tmp_path: Path, legacy: bool, wrapped: bool) -> None:
        content = {"state_dict": WEIGHTS, "epoch": 3} if wrapped else WEIGHTS
        path = saved(tmp_path / "a.pt", content, _use_new_zipfile_serialization=not legacy)
        assert_weights(load_state_dict(path))

    def test_reads_safetensors(self, tmp_path: Path) -> None:
        save_file(dict(reversed(WEIGHTS.items())), tmp_path / "a.safetensors")
        assert_weights(dict(sorted(load_state_dict(tmp_path / "a.safetensors").items(), reverse=True)))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_floats_become_float32_and_counts_stay(self, tmp_path: Path, dtype: torch.dtype) -> None:
        content = {key: value.to(dtype) for key, value in WEIGHTS.items()} | {"steps": torch.tensor(7)}
        found = load_state_dict(saved(tmp_path / "a.pt", content))
        steps = found.pop("steps")
        assert (steps.dtype, steps.item()) == (torch.int64, 7)
        assert_weights(found)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    def test_a_value_that_is_not_finite_is_named(self, tmp_path: Path, value: float, suffix: str) -> None:
        content = {"good": torch.zeros(2), "layer.bad": torch.tensor([1.0, value]), "worse": torch.tensor([value])}
        path = tmp_path / f"a{suffix}"
        save_file(content, path) if suffix == ".safetensors" else torch.save(content, path)
        with pytest.raises(CheckpointError, match=r"layer\.bad holds NaN or infinite values"):
            load_state_dict(path)

    def test_a_double_beyond_float32_is_not_finite(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "a.pt", {"big": torch.tensor([1e300], dtype=torch.float64)})
        with pytest.raises(CheckpointError, match="big holds NaN or infinite"):
            load_state_dict(path)


class TestNoCheckpoint:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"there is no checkpoint .*a\.pt"):
            load_state_dict(tmp_path / "a.pt")

    def test_folder(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="is a folder"):
            load_state_dict(tmp_path)

    @pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "is empty"),
            (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
            (b"<html lang='en'>404</html>", "is a web page"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 139410184\n", "run: git lfs pull"),
        ],
        ids=["empty", "page", "page without doctype", "pointer"],
    )
    def test_common_mistakes(self, tmp_path: Path, name: str, content: bytes, said: str) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=said):
            load_state_dict(tmp_path / name)

    @pytest.mark.parametrize("content", [b"weights, believe me", bytes(1000), b"\x00\xff" * 500], ids=range(3))
    @pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
    def test_anything_else(self, tmp_path: Path, name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=r"no checkpoint, or damaged|no safetensors file"):
            load_state_dict(tmp_path / name)

    def test_a_zip_of_other_files(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
            archive.writestr("readme.txt", "no weights")
        with pytest.raises(CheckpointError, match="no checkpoint, or damaged"):
            load_state_dict(tmp_path / "a.pt")

    @pytest.mark.parametrize("legacy", [False, True])
    def test_truncated_anywhere(self, tmp_path: Path, legacy: bool) -> None:
        whole = saved(tmp_path / "a.pt", WEIGHTS, _use_new_zipfile_serialization=not legacy).read_bytes()
        path = tmp_path / "b.pt"
        for size in (2, 10, len(whole) // 3, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:size])
            with pytest.raises(CheckpointError, match=r"truncated|damaged"):
                load_state_dict(path)

    def test_a_truncated_archive_is_reported_as_such(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "a.pt", WEIGHTS)
        path.write_bytes(path.read_bytes()[:500])
        with pytest.raises(CheckpointError, match=r"a\.pt is truncated: it ends after 500 bytes"):
            load_state_dict(path)

    def test_truncated_safetensors(self, tmp_path: Path) -> None:
        path = tmp_path / "a.safetensors"
        save_file(WEIGHTS, path)
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(CheckpointError, match="is truncated or no safetensors file"):
            load_state_dict(path)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ({}, "holds an empty dict"),
            ({"state_dict": {}}, "holds an empty dict"),
            ([torch.zeros(2)], "holds a list"),
            (torch.zeros(2), "holds a Tensor"),
            ({"weight": torch.zeros(2), "epoch": 3}, "holds a int under 'epoch'"),
            ({"state_dict": WEIGHTS | {"model": {"a": torch.zeros(2)}}}, "holds a dict under 'model'"),
            ({3: torch.zeros(2)}, "under 3"),
            ({"weight": torch.eye(3).to_sparse()}, "under 'weight'"),
        ],
        ids=range(8),
    )
    def test_other_contents(self, tmp_path: Path, content: object, said: str) -> None:
        with pytest.raises(CheckpointError, match=f"{said}; expected a dict of tensors by name"):
            load_state_dict(saved(tmp_path / "a.pt", content))


class TestCode:
    @pytest.mark.parametrize("legacy", [False, True])
    def test_in_a_checkpoint_is_named_and_not_run(self, tmp_path: Path, legacy: bool) -> None:
        mark = tmp_path / "mark"
        path = saved(tmp_path / "a.pt", WEIGHTS | {"x": Code(mark)}, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(CheckpointError, match=r"holds code \((posix|nt)\.system\) .* not loaded"):
            load_state_dict(path)
        assert not mark.exists()
        torch.load(path, weights_only=False)  # shows that unpickling does run the code
        assert mark.exists()

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_in_a_bare_pickle_is_not_run(self, tmp_path: Path, protocol: int) -> None:
        mark = tmp_path / "mark"
        (tmp_path / "a.pt").write_bytes(pickle.dumps(Code(mark), protocol))
        with pytest.raises(CheckpointError):
            load_state_dict(tmp_path / "a.pt")
        assert not mark.exists()


class TestLoadInto:
    @staticmethod
    def model() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))

    @pytest.fixture
    def state_dict(self) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        return {
            key: value + torch.rand(value.shape) if value.is_floating_point() else value + 5
            for key, value in self.model().state_dict().items()
        }

    def test_copies_weights_and_buffers(self, state_dict: dict[str, torch.Tensor]) -> None:
        model = self.model()
        load_into(model, state_dict, name="toy", path="a.pt")
        for key, value in model.state_dict().items():
            torch.testing.assert_close(value, state_dict[key], rtol=0, atol=0)
        assert int(model.state_dict()["1.num_batches_tracked"]) == 5

    def test_lists_what_differs_and_changes_nothing(self, state_dict: dict[str, torch.Tensor]) -> None:
        model = self.model()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        del state_dict["1.num_batches_tracked"], state_dict["1.running_mean"]
        state_dict["0.weight"] = torch.zeros(4, 3, 3, 3)
        state_dict |= {f"extra{i}": torch.zeros(1) for i in range(5)}
        with pytest.raises(CheckpointError) as caught:
            load_into(model, state_dict, name="toy", path="a.pt", variants={})
        message = str(caught.value)
        assert message.startswith("a.pt is no checkpoint of toy: ")
        assert "2 missing (1.running_mean, 1.num_batches_tracked)" in message
        assert "5 unknown (extra0, extra1, extra2, …)" in message
        assert "1 of another shape (0.weight: (4, 3, 3, 3), expected (4, 3, 1, 1))" in message
        for key, value in model.state_dict().items():
            torch.testing.assert_close(value, before[key], rtol=0, atol=0)

    def test_one_missing_buffer_is_enough(self, state_dict: dict[str, torch.Tensor]) -> None:
        del state_dict["1.num_batches_tracked"]
        with pytest.raises(CheckpointError, match=r"1 missing \(1\.num_batches_tracked\)$"):
            load_into(self.model(), state_dict, name="toy", path="a.pt")

    def test_names_the_variant_that_fits(self, state_dict: dict[str, torch.Tensor]) -> None:
        shapes = {key: tuple(value.shape) for key, value in self.model().state_dict().items()}
        state_dict["0.weight"] = torch.zeros(4, 5, 1, 1)
        variants = {
            "toy-s": shapes,
            "toy-m": shapes | {"0.weight": (4, 4, 1, 1)},
            "toy-l": shapes | {"0.weight": (4, 5, 1, 1)},
        }
        with pytest.raises(CheckpointError, match=r"^a\.pt is a checkpoint of toy-l, not of toy-s$"):
            load_into(self.model(), state_dict, name="toy-s", path="a.pt", variants=variants)

    def test_a_variant_that_only_nearly_fits_is_not_named(self, state_dict: dict[str, torch.Tensor]) -> None:
        shapes = {key: tuple(value.shape) for key, value in self.model().state_dict().items()}
        state_dict["0.weight"] = torch.zeros(4, 5, 1, 1)
        other = shapes | {"0.weight": (4, 5, 1, 1)}
        variants = {"toy-s": other, "toy-l": other | {"more": (1,)}}
        with pytest.raises(CheckpointError, match=r"no checkpoint of toy-s.*1 of another shape"):
            load_into(self.model(), state_dict, name="toy-s", path="a.pt", variants=variants)

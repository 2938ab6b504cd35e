"""A bundle as a Triton model repository: what is written, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from typer.testing import CliRunner

from samg_fast.bundle import ROLES, Bundle, FileSpec, Manifest, Role
from samg_fast.cli import app
from samg_fast.errors import BackendError, BundleError, FileError, InputError, InputTypeError, SamgError
from support.fixed_batch import fixed_batch
from support.synthetic_bundle import write_fitted_bundle

pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import TYPE_FP32, ModelConfig, ModelInstanceGroup

from samg_fast.serving.repository import write_repository


@pytest.fixture
def bundle(bundle_folder: Path) -> Bundle:
    return Bundle.open(bundle_folder)


@pytest.fixture
def shared(shared_folder: Path) -> Bundle:
    return Bundle.open(shared_folder)


def config_of(model: Path) -> Any:
    return text_format.Parse((model / "config.pbtxt").read_text(encoding="utf-8"), ModelConfig())


def dims(ports: Any) -> dict[str, list[int]]:
    return {port.name: list(port.dims) for port in ports}


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


class TestConfig:
    def test_an_open_batch_is_tritons_own_axis(self, bundle: Bundle, tmp_path: Path) -> None:
        models = write_repository(bundle, tmp_path / "models", most=4)
        assert [(each.name, each.role, each.max_batch_size) for each in models] == [
            ("synthetic_encoder", "encoder", 4),
            ("synthetic_features", "features", 4),
            ("synthetic_decoder", "decoder", 4),
        ]
        config = config_of(tmp_path / "models" / "synthetic_decoder")
        assert (config.name, config.platform, config.max_batch_size) == ("synthetic_decoder", "onnxruntime_onnx", 4)
        assert config.HasField("dynamic_batching")
        assert dims(config.input) == {
            "embedding": [8, 16, 16],
            "point_coords": [12, 2],
            "point_labels": [12],
            "mask_input": [1, 64, 64],
            "has_mask_input": [1],
        }
        assert dims(config.output) == {"low_res_masks": [4, 64, 64], "iou": [4]}
        assert {port.data_type for port in (*config.input, *config.output)} == {TYPE_FP32}
        # Triton allows no empty dims: (B,), and only that, is sent as (B, 1)
        assert [port.name for port in config.input if port.HasField("reshape")] == ["has_mask_input"]
        assert not config.input[4].reshape.shape

    def test_a_fitted_bundle_is_one_model(self, tmp_path: Path) -> None:
        bundle = Bundle.open(write_fitted_bundle(tmp_path / "fitted"))
        (model,) = write_repository(bundle, tmp_path / "models", most=4)
        assert (model.name, model.role, model.max_batch_size) == ("fitted_network", "network", 4)
        config = config_of(tmp_path / "models" / "fitted_network")
        assert dims(config.input) == {"image": [3, 48, 48]}
        assert dims(config.output) == {"logits": [1, 48, 48], "score": [1]}

    def test_a_fixed_batch_is_an_axis_like_any_other(self, bundle: Bundle, tmp_path: Path) -> None:
        fixed = fixed_batch(bundle, tmp_path / "fixed", 2)
        assert {each.max_batch_size for each in write_repository(fixed, tmp_path / "models")} == {0}
        config = config_of(tmp_path / "models" / "synthetic_decoder")
        assert not config.HasField("dynamic_batching")
        assert dims(config.input)["embedding"] == [2, 8, 16, 16]
        assert dims(config.input)["has_mask_input"] == [2]
        assert not any(port.HasField("reshape") for port in config.input)

    def test_weights_beside_a_graph_keep_their_name(self, bundle: Bundle, tmp_path: Path) -> None:
        fixed = fixed_batch(bundle, tmp_path / "fixed", 1)
        models = write_repository(fixed, tmp_path / "models")
        assert [file.as_posix() for file in models[0].files] == [
            "synthetic_encoder/1/encoder.weights",
            "synthetic_encoder/1/model.onnx",
            "synthetic_encoder/config.pbtxt",
        ]
        onnx.load(tmp_path / "models" / "synthetic_encoder" / "1" / "model.onnx")  # loads the weights too

    def test_a_shared_graph_is_one_model(self, shared: Bundle, tmp_path: Path) -> None:
        models = write_repository(shared, tmp_path / "models")
        assert [each.role for each in models] == ["encoder", "decoder"]
        config = config_of(tmp_path / "models" / "synthetic-shared_encoder")
        assert dims(config.output) == {"embedding": [8, 16, 16], "features": [11, 16, 16]}

    def test_onnx_runtime_uses_cuda_if_present_and_does_not_round_to_tf32(self, bundle: Bundle, tmp_path: Path) -> None:
        write_repository(bundle, tmp_path / "models")
        config = config_of(tmp_path / "models" / "synthetic_encoder")
        assert not config.instance_group  # so Triton uses a GPU if there is one, else the CPU
        (cuda,) = config.optimization.execution_accelerators.gpu_execution_accelerator
        assert (cuda.name, dict(cuda.parameters)) == ("cuda", {"use_tf32": "0"})

    def test_the_configuration_names_bundle_fingerprint_and_precision(self, bundle: Bundle, tmp_path: Path) -> None:
        write_repository(bundle, tmp_path / "models")
        said = config_of(tmp_path / "models" / "synthetic_features").parameters
        assert {key: said[key].string_value for key in said} == {
            "samg_fast_bundle": "synthetic",
            "samg_fast_fingerprint": bundle.fingerprint,
            "samg_fast_precision": "fp32",
        }

    def test_a_precision_has_its_own_files(self, bundle: Bundle, tmp_path: Path) -> None:
        manifest = bundle.manifest
        half = FileSpec(
            file=manifest.features.file, sha256=manifest.features.sha256
        )  # another network's file, to recognise it by its bytes
        both = replace(manifest, precisions=("fp32", "fp16"), precision_files={"fp16": {"decoder": half}})
        write_repository(Bundle(bundle.path, both), tmp_path / "models", precision="fp16")
        written = {
            role: tmp_path / "models" / f"synthetic_{role}" / "1" / "model.onnx" for role in ("encoder", "decoder")
        }
        assert written["encoder"].read_bytes() == bundle.onnx_path("encoder").read_bytes()
        assert written["decoder"].read_bytes() == bundle.onnx_path("features").read_bytes()


class TestEngines:
    @staticmethod
    def engine(role: Role) -> bytes:
        return f"the {role}'s engine".encode()

    def test_engines_take_the_place_of_graphs(self, bundle: Bundle, tmp_path: Path) -> None:
        models = write_repository(bundle, tmp_path / "models", platform="tensorrt", most=8, engine=self.engine)
        assert tree(tmp_path / "models") == sorted(
            f"synthetic_{role}/{file}"
            for role in ("encoder", "features", "decoder")
            for file in ("1/model.plan", "config.pbtxt")
        )
        assert models[0].files[0].as_posix() == "synthetic_encoder/1/model.plan"
        folder = tmp_path / "models" / "synthetic_features"
        assert (folder / "1" / "model.plan").read_bytes() == b"the features's engine"
        config = config_of(folder)
        assert config.platform == "tensorrt_plan"
        (group,) = config.instance_group
        assert group.kind == ModelInstanceGroup.KIND_GPU
        assert list(group.profile) == ["0", "1"]  # for batches of one, and of two to eight
        assert not config.HasField("optimization")

    def test_a_maximum_batch_of_one_has_one_profile(self, bundle: Bundle, tmp_path: Path) -> None:
        write_repository(bundle, tmp_path / "models", platform="tensorrt", most=1, engine=self.engine)
        assert list(config_of(tmp_path / "models" / "synthetic_decoder").instance_group[0].profile) == ["0"]

    def test_a_fixed_batch_has_no_profile(self, bundle: Bundle, tmp_path: Path) -> None:
        fixed = fixed_batch(bundle, tmp_path / "fixed", 2)
        write_repository(fixed, tmp_path / "models", platform="tensorrt", engine=self.engine)
        assert not config_of(tmp_path / "models" / "synthetic_decoder").instance_group[0].profile

    def test_engines_come_from_the_cache(self, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[object] = []

        def choose(name: str, precision: str, threads: None, manifest: Manifest, *, batches: tuple[int, ...]) -> object:
            asked.append((name, precision, batches))
            return "the backend"

        def prepare(bundle: Bundle, backend: object) -> list[Any]:
            asked.append((bundle, backend))
            return [(SimpleNamespace(role=role), f"the {role} compiled".encode()) for role in ROLES]

        monkeypatch.setattr("samg_fast.serving.repository.choose", choose)
        monkeypatch.setitem(sys.modules, "samg_fast.engine_cache", SimpleNamespace(prepare=prepare))
        halved = {role: bundle.file(role) for role in ("encoder", "features")}  # the decoder keeps to float32
        manifest = replace(bundle.manifest, precisions=("fp32", "fp16"), precision_files={"fp16": halved})
        mixed = Bundle(bundle.path, manifest)
        write_repository(mixed, tmp_path / "models", precision="fp16", platform="tensorrt", most=6)
        assert asked == [("tensorrt", "fp16", (1, 6)), (mixed, "the backend")]
        plans = [tmp_path / "models" / f"synthetic_{role}" / "1" / "model.plan" for role in ("encoder", "decoder")]
        assert [plan.read_bytes() for plan in plans] == [b"the encoder compiled", b"the decoder compiled"]

    def test_a_failed_engine_build_leaves_nothing(self, bundle: Bundle, tmp_path: Path) -> None:
        def engine(role: Role) -> bytes:
            if role == "decoder":
                raise BackendError("no engine")
            return b"an engine"

        with pytest.raises(BackendError, match="no engine"):
            write_repository(bundle, tmp_path / "models", platform="tensorrt", engine=engine)
        assert not list(tmp_path.iterdir())


class TestFolder:
    def test_parents_are_created_and_no_temporary_files_stay(self, bundle: Bundle, tmp_path: Path) -> None:
        write_repository(bundle, tmp_path / "new" / "models")
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["models"]

    def test_an_empty_folder_is_filled(self, bundle: Bundle, tmp_path: Path) -> None:
        models = write_repository(bundle, tmp_path)
        assert tree(tmp_path) == sorted(file.as_posix() for each in models for file in each.files)

    def test_models_are_replaced_and_those_of_others_stay(self, bundle: Bundle, shared: Bundle, tmp_path: Path) -> None:
        write_repository(shared, tmp_path / "models")
        write_repository(bundle, tmp_path / "models", most=4)
        stale = tmp_path / "models" / "synthetic_encoder" / "1" / "stale"
        stale.touch()
        before = len(tree(tmp_path))
        write_repository(bundle, tmp_path / "models", most=2)
        assert config_of(tmp_path / "models" / "synthetic_encoder").max_batch_size == 2
        assert config_of(tmp_path / "models" / "synthetic-shared_encoder").max_batch_size == 8
        assert len(tree(tmp_path)) == before - 1
        assert not stale.exists()

    @pytest.mark.parametrize("strange", ["notes.txt", "other/config.pbtxt", "odd/config.pbtxt"])
    def test_a_folder_with_anything_else_is_refused(self, bundle: Bundle, tmp_path: Path, strange: str) -> None:
        path = tmp_path / strange
        path.parent.mkdir(exist_ok=True)
        path.write_text('name: "other"\n' if "other" in strange else "{{", encoding="utf-8")
        with pytest.raises(FileError, match=f"it holds {Path(strange).parts[0]}, which is no model of ours"):
            write_repository(bundle, tmp_path)
        assert tree(tmp_path) == [strange]

    def test_a_file_is_no_folder(self, bundle: Bundle, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(FileError, match=r"cannot write the model repository .*/file: Not a directory"):
            write_repository(bundle, tmp_path / "file")

    def test_a_folder_that_cannot_be_created_is_reported(self, bundle: Bundle, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(FileError, match=r"cannot write the model repository .*/file/models: File exists"):
            write_repository(bundle, tmp_path / "file" / "models")

    def test_a_model_that_cannot_be_moved_leaves_the_old_one(
        self, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_repository(bundle, tmp_path / "models", most=4)
        rename = Path.rename

        def failing(path: Path, target: Path) -> Path:
            if target == tmp_path / "models" / path.name and ".part" in str(path):
                raise OSError(28, "No space left on device")
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", failing)
        with pytest.raises(FileError, match="No space left on device"):
            write_repository(bundle, tmp_path / "models", most=2)
        kept = [config_of(model).max_batch_size for model in (tmp_path / "models").iterdir()]
        assert kept == [4, 4, 4]
        assert [path.name for path in tmp_path.iterdir()] == ["models"]

    def test_a_full_disk_leaves_nothing(self, bundle: Bundle, tmp_path: Path) -> None:
        program = (
            "import sys\n"
            "from samg_fast.bundle import Bundle\n"
            "from samg_fast.serving.repository import write_repository\n"
            "write_repository(Bundle.open(sys.argv[1]), sys.argv[2])\n"
        )

        def fill() -> None:  # limits files to half the size of the smallest graph
            limit = min(path.stat().st_size for path in bundle.path.glob("*.onnx")) // 2
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        command = [sys.executable, "-c", program, str(bundle.path), str(tmp_path / "models")]
        done = subprocess.run(command, capture_output=True, text=True, preexec_fn=fill, check=False)
        assert done.stderr.rstrip().endswith(f"cannot write the model repository {tmp_path / 'models'}: File too large")
        assert not list(tmp_path.iterdir())


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "error", "said"),
        [
            ({"precision": "fp16"}, InputError, "precision is 'fp16', but bundle synthetic has files for fp32 only"),
            ({"platform": "torch"}, InputError, "platform is 'torch', expected onnxruntime or tensorrt"),
            (
                {"platform": "tensorrt-rtx"},
                InputError,
                "platform is 'tensorrt-rtx', whose engines Triton cannot load, expected onnxruntime or tensorrt",
            ),
            ({"most": 0}, InputError, "most must be at least 1, not 0"),
            ({"most": 1.5}, InputTypeError, "most must be a whole number, not 1.5"),
            ({"most": True}, InputTypeError, "most must be a whole number, not True"),
        ],
    )
    def test_an_option(
        self, bundle: Bundle, tmp_path: Path, options: dict[str, Any], error: type[SamgError], said: str
    ) -> None:
        with pytest.raises(error) as raised:
            write_repository(bundle, tmp_path / "models", **options)
        assert str(raised.value) == said
        assert not list(tmp_path.iterdir())

    def test_a_batch_that_the_bundle_does_not_take(self, bundle: Bundle, tmp_path: Path) -> None:
        fixed = fixed_batch(bundle, tmp_path / "fixed", 2)
        with pytest.raises(InputError, match="most is 8, but bundle synthetic was made for 2 at once"):
            write_repository(fixed, tmp_path / "models", most=8)
        assert write_repository(fixed, tmp_path / "models", most=2)

    @pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "zwölf", "a b"])
    def test_a_bundle_whose_name_cannot_start_a_models(self, bundle: Bundle, tmp_path: Path, name: str) -> None:
        renamed = Bundle(bundle.path, replace(bundle.manifest, name=name))
        with pytest.raises(BundleError, match="cannot begin the name of a model"):
            write_repository(renamed, tmp_path / "models")

    def test_a_file_that_is_no_onnx(self, bundle: Bundle, tmp_path: Path) -> None:
        (tmp_path / "encoder.onnx").write_bytes(b"\xff" * 64)
        with pytest.raises(BundleError, match=r"encoder.onnx cannot be read as ONNX"):
            write_repository(Bundle(tmp_path, bundle.manifest), tmp_path / "models")

    def test_a_graph_that_is_not_float32(self, bundle: Bundle, tmp_path: Path) -> None:
        model = onnx.load(bundle.onnx_path("encoder"))
        model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
        onnx.save(model, tmp_path / "encoder.onnx")
        with pytest.raises(BundleError, match="image is not what a bundle's graph has, expected float32"):
            write_repository(Bundle(tmp_path, bundle.manifest), tmp_path / "models")


class TestCommand:
    @pytest.fixture
    def cli(self) -> CliRunner:
        return CliRunner()

    def test_writes_and_reports(self, cli: CliRunner, bundle: Bundle, tmp_path: Path) -> None:
        out = tmp_path / "models"
        command = ["export", "--triton", str(out), "--bundle", str(bundle.path), "--batch", "4", "--json", "-"]
        result = cli.invoke(app, command)
        assert result.exit_code == 0, result.output
        figures = json.loads(result.stdout)
        assert {key: figures[key] for key in ("repository", "bundle", "precision", "platform")} == {
            "repository": str(out),
            "bundle": "synthetic",
            "precision": "fp32",
            "platform": "onnxruntime",
        }
        assert [each["max_batch_size"] for each in figures["models"]] == [4, 4, 4]
        sizes = {each["file"]: each["bytes"] for model in figures["models"] for each in model["files"]}
        assert sizes == {file: (out / file).stat().st_size for file in tree(out)}

    def test_the_default_maximum_batch_is_eight(self, cli: CliRunner, tmp_path: Path) -> None:
        result = cli.invoke(app, ["export", "--triton", str(tmp_path / "models"), "--bundle", "tiny"])
        assert result.exit_code == 0, result.output
        assert config_of(tmp_path / "models" / "tiny_decoder").max_batch_size == 8

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--triton", "models"], "--triton: needs --bundle"),
            (
                ["--triton", "models", "--bundle", "tiny", "--out", "x"],
                "--triton: takes a bundle as it is, without --out",
            ),
            (["--triton", "models", "--sam", "l0"], "--triton: takes a bundle as it is, without --sam"),
            (["--triton", "models", "--bundle", "tiny", "--slots", "16"], "takes a bundle as it is, without --slots"),
            (["--triton", "models", "--bundle", "tiny", "--precision", "fp16,int8"], "--precision: is one precision"),
            (["--triton", "models", "--bundle", "tiny", "--batch", "0"], "--batch: is 1 or more"),
            (["--triton", "models", "--bundle", "tiny", "--platform", "tensorrt-rtx"], "engines Triton cannot load"),
            (["--platform", "tensorrt"], "--platform: needs --triton"),
        ],
    )
    def test_bad_usage(
        self, cli: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        result = cli.invoke(app, ["export", *options], env={"COLUMNS": "200"})
        assert result.exit_code == 2
        assert said in result.output
        assert not list(tmp_path.iterdir())

    def test_a_missing_extra_is_named(self, cli: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "tritonclient", None)
        for name in [name for name in sys.modules if name.startswith(("samg_fast.serving.", "tritonclient."))]:
            monkeypatch.delitem(sys.modules, name)
        result = cli.invoke(app, ["export", "--triton", str(tmp_path / "models"), "--bundle", "tiny"])
        assert result.exit_code == 1
        assert "writing a Triton model repository needs packages that are not installed" in result.output
        assert "samg-fast[triton]" in result.output

    def test_engines_need_tensorrt(self, cli: CliRunner, tmp_path: Path) -> None:
        if importlib.util.find_spec("tensorrt") is not None:
            pytest.skip("tensorrt is installed")
        command = ["export", "--triton", str(tmp_path / "models"), "--bundle", "tiny", "--platform", "tensorrt"]
        result = cli.invoke(app, command)
        assert result.exit_code == 1
        assert "samg-fast: the tensorrt backend needs packages that are not installed" in result.output
        assert not list(tmp_path.iterdir())

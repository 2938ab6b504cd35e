"""Official checkpoints: the catalogue, and downloads from a local server that cuts, alters and refuses files."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from samg_fast.bundle import checkpoints
from samg_fast.bundle.checkpoints import CHECKPOINTS, Checkpoint, find, folder, path_of, pull
from samg_fast.errors import CheckpointError, DownloadError, InputError, MissingExtraError
from support.file_server import FileServer, serving

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
CHUNK = 1000


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(CONTENT) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a temporary folder for checkpoints, and return its path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "samg-fast" / "checkpoints"


@pytest.fixture
def toy(server: FileServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a file of the server the only official checkpoint, and return its path in the folder."""
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    monkeypatch.setattr(checkpoints, "CHECKPOINTS", (toy_checkpoint(server),))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", CHUNK)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)  # no pause between retries
    return home / "toy.pt"


def toy_checkpoint(server: FileServer, sha256: str = SHA256) -> Checkpoint:
    return Checkpoint("toy", f"{server.address}/toy.pt", sha256, len(CONTENT), 1, "page", "Apache-2.0", "licence")


def visible(path: Path) -> list[str]:
    """Return the names of a folder's files, without partial files and locks."""
    return sorted(file.name for file in path.iterdir() if not file.name.startswith("."))


class TestCatalogue:
    def test_holds_every_official_size(self) -> None:
        vits = [f"dinov2-vit{size}14{registers}" for registers in ("", "-reg") for size in "sblg"]
        assert [known.name for known in CHECKPOINTS] == [
            *(f"efficientvit-sam-{size}" for size in ("l0", "l1", "l2", "xl0", "xl1")),
            *vits,
        ]

    def test_addresses_are_the_published_ones(self) -> None:
        assert (
            find("xl1").url
            == "https://huggingface.co/mit-han-lab/efficientvit-sam/resolve/main/efficientvit_sam_xl1.pt"
        )
        assert find("vits14").url == "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth"
        assert (
            find("vitg14-reg").url
            == "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitg14/dinov2_vitg14_reg4_pretrain.pth"
        )

    def test_files_and_hashes_are_unique(self) -> None:
        assert len({known.file for known in CHECKPOINTS}) == len(CHECKPOINTS)
        assert len({known.sha256 for known in CHECKPOINTS}) == len(CHECKPOINTS)
        assert all(len(known.sha256) == 64 and set(known.sha256) <= set("0123456789abcdef") for known in CHECKPOINTS)

    def test_sizes_are_those_of_float32_weights(self) -> None:
        for known in CHECKPOINTS:
            assert known.size == pytest.approx(4 * known.parameters, rel=0.08), known.name

    @pytest.mark.parametrize("known", CHECKPOINTS, ids=lambda known: known.name)
    def test_finds_by_both_names(self, known: Checkpoint) -> None:
        assert find(known.name) is known
        assert find(known.name.split("-", 2 if known.name.startswith("eff") else 1)[-1]) is known

    def test_an_unknown_name_lists_the_known(self) -> None:
        with pytest.raises(InputError, match=r"'l9'; there are efficientvit-sam-l0, .*, dinov2-vitg14-reg$"):
            find("l9")

    def test_the_folder_follows_xdg(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
        assert folder() == tmp_path / "x" / "samg-fast" / "checkpoints"
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        assert folder() == tmp_path / ".cache" / "samg-fast" / "checkpoints"
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert folder() == tmp_path / ".cache" / "samg-fast" / "checkpoints"

    def test_imports_nothing_heavy(self) -> None:
        program = (
            "import sys, samg_fast.bundle.checkpoints;"
            "print(sorted({'torch', 'huggingface_hub', 'httpx2', 'filelock'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"


class TestPull:
    def test_fetches_once(self, server: FileServer, toy: Path) -> None:
        assert path_of("toy") is None
        seen: list[tuple[int, int | None]] = []
        assert pull("toy", progress=lambda *here: seen.append(here)) == toy
        assert toy.read_bytes() == CONTENT
        assert seen[0] == (0, len(CONTENT))
        assert seen[-1] == (len(CONTENT), len(CONTENT))
        assert visible(toy.parent) == ["toy.pt"]
        assert pull("toy") == path_of("toy") == toy
        assert server.ranges == [None]

    def test_resumes_after_a_cut_connection(self, server: FileServer, toy: Path) -> None:
        server.cuts = [3 * CHUNK]
        assert pull("toy").read_bytes() == CONTENT
        assert server.ranges == [None, f"bytes={3 * CHUNK}-"]

    def test_resumes_after_an_interrupt(self, server: FileServer, toy: Path) -> None:
        def interrupt(here: int, total: int | None) -> None:
            if here > 2 * CHUNK:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pull("toy", progress=interrupt)
        assert visible(toy.parent) == []
        assert path_of("toy") is None
        seen: list[int] = []
        assert pull("toy", progress=lambda here, total: seen.append(here)).read_bytes() == CONTENT
        assert server.ranges == [None, f"bytes={2 * CHUNK}-"]
        assert seen[0] == 2 * CHUNK

    def test_starts_over_if_the_server_cannot_resume(self, server: FileServer, toy: Path) -> None:
        server.resumes = False
        server.cuts = [3 * CHUNK]
        assert pull("toy").read_bytes() == CONTENT

    def test_finishes_a_complete_partial_file(self, server: FileServer, toy: Path) -> None:
        toy.parent.mkdir(parents=True)
        (toy.parent / ".toy.pt.part").write_bytes(CONTENT)
        assert pull("toy").read_bytes() == CONTENT
        assert visible(toy.parent) == ["toy.pt"]

    def test_a_wrong_file_is_never_trusted(self, server: FileServer, toy: Path) -> None:
        server.content = b"<!DOCTYPE html>" + bytes(4 * CHUNK)
        wrong = hashlib.sha256(server.content).hexdigest()
        with pytest.raises(CheckpointError, match=rf"{server.address}/toy.pt is not .* is {wrong}, expected {SHA256}"):
            pull("toy")
        assert visible(toy.parent) == []
        assert path_of("toy") is None
        server.content = CONTENT
        assert pull("toy").read_bytes() == CONTENT
        assert server.ranges == [None, None]  # nothing of the wrong one was kept

    def test_an_unfinished_file_that_is_wrong_is_not_kept(self, server: FileServer, toy: Path) -> None:
        toy.parent.mkdir(parents=True)
        (toy.parent / ".toy.pt.part").write_bytes(bytes(CHUNK))
        with pytest.raises(CheckpointError, match="pull again"):
            pull("toy")
        assert pull("toy").read_bytes() == CONTENT

    @pytest.mark.parametrize("status", [404, 500])
    def test_a_refusal_says_what_to_do(self, server: FileServer, toy: Path, status: int) -> None:
        server.status = status
        with pytest.raises(DownloadError) as caught:
            pull("toy")
        message = str(caught.value)
        assert message.startswith(f"cannot fetch toy from {server.address}/toy.pt: ")
        assert str(status) in message
        assert message.endswith(f"put it at {toy}")
        assert "\n" not in message

    def test_without_a_network_it_says_what_to_do(
        self, server: FileServer, toy: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.server_close()  # no server listens there now
        logger = logging.getLogger("huggingface_hub.file_download")
        logger.addHandler(caplog.handler)
        try:
            with pytest.raises(DownloadError) as caught:
                pull("toy")
        finally:
            logger.removeHandler(caplog.handler)
        assert f"from {server.address}/toy.pt" in str(caught.value)
        assert str(caught.value).endswith(f"put it at {toy}")
        assert caplog.records == []  # one error, not one per retry

    def test_offline_mode_makes_no_request(
        self, server: FileServer, toy: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(DownloadError, match="HF_HUB_OFFLINE") as caught:
            pull("toy")
        assert f"{server.address}/toy.pt" in str(caught.value)
        assert str(caught.value).endswith(f"put it at {toy}")
        assert server.requests == []

    def test_a_folder_that_cannot_be_made(self, server: FileServer, toy: Path) -> None:
        toy.parent.parent.mkdir(parents=True)
        toy.parent.write_bytes(b"")
        with pytest.raises(DownloadError, match=f"cannot fetch toy into {toy.parent}: "):
            pull("toy")

    def test_without_its_packages(self, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(MissingExtraError, match=r"samg-fast\[export\]"):
            pull("toy")


class TestByHand:
    def test_a_whole_file_is_taken(self, server: FileServer, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # not needed
        toy.parent.mkdir(parents=True)
        toy.write_bytes(CONTENT)
        assert pull("toy") == path_of("toy") == toy
        assert server.requests == []

    def test_another_file_is_refused_and_left(self, server: FileServer, toy: Path) -> None:
        toy.parent.mkdir(parents=True)
        toy.write_bytes(CONTENT[:-1])
        assert path_of("toy") is None
        with pytest.raises(
            CheckpointError, match=rf"{toy} is not checkpoint toy, or is truncated .* expected {SHA256}"
        ):
            pull("toy")
        assert toy.read_bytes() == CONTENT[:-1]
        assert server.requests == []

    def test_a_folder_is_refused(self, toy: Path) -> None:
        toy.mkdir(parents=True)
        assert path_of("toy") is None
        with pytest.raises(CheckpointError, match="is no file"):
            pull("toy")


class TestGivenHash:
    def test_replaces_the_known_one_for_good(self, server: FileServer, toy: Path) -> None:
        server.content = b"published anew"
        new = hashlib.sha256(server.content).hexdigest()
        assert pull("toy", sha256=f" {new.upper()}") == toy
        assert path_of("toy") == pull("toy") == toy
        assert checkpoints.expected_sha256("toy") == new
        assert len(server.requests) == 1
        toy.write_bytes(CONTENT)  # the file before it was replaced
        assert path_of("toy") is None

    def test_a_wrong_one_refuses_the_right_file(self, toy: Path) -> None:
        with pytest.raises(CheckpointError, match=f"expected {'0' * 64}"):
            pull("toy", sha256="0" * 64)
        assert visible(toy.parent) == []
        assert checkpoints.expected_sha256("toy") == SHA256

    def test_invalid_hash_is_refused_before_the_download(self, server: FileServer, toy: Path) -> None:
        with pytest.raises(InputError, match=r"sha256 is 'abc'; expected 64 hexadecimal digits"):
            pull("toy", sha256="abc")
        assert server.requests == []

    @pytest.mark.parametrize("damage", [b"", b"half a ha", b"\xff"])
    def test_a_damaged_record_is_named(self, toy: Path, damage: bytes) -> None:
        pull("toy")
        record = toy.with_name("toy.pt.sha256")
        record.write_bytes(damage)
        for use in (path_of, pull):
            with pytest.raises(CheckpointError, match=f"{record} holds no SHA-256"):
                use("toy")


class TestOtherProcesses:
    PROGRAM = """
import sys, filelock
from samg_fast.bundle import checkpoints
acquire = filelock.FileLock.acquire
def announce(*args, **options):
    print("at the lock", flush=True)
    return acquire(*args, **options)
filelock.FileLock.acquire = announce
repo, address, sha256 = sys.argv[1:]
checkpoints.CHECKPOINTS = (checkpoints.Checkpoint("toy", address, sha256, 1, 1, "", "", "", repo or None),)
print(checkpoints.pull("toy"))
"""

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
        inherited = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
        return subprocess.Popen(
            [sys.executable, "-c", self.PROGRAM, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=inherited | environment,
        )

    def test_two_at_once_fetch_once(self, server: FileServer, home: Path) -> None:
        server.gate.clear()
        both = [self.start("", f"{server.address}/toy.pt", SHA256) for _ in range(2)]
        for process in both:
            assert process.stdout is not None
            assert process.stdout.readline() == "at the lock\n"
        server.gate.set()
        for process in both:
            output, errors = process.communicate(timeout=60)
            assert (process.returncode, output, errors) == (0, f"{home / 'toy.pt'}\n", "")
        assert server.ranges == [None]
        assert (home / "toy.pt").read_bytes() == CONTENT

    def test_a_mirror_of_the_hub_is_used(self, server: FileServer, home: Path) -> None:
        official = "https://huggingface.co/lab/models/resolve/main/toy.pt"
        process = self.start("lab/models", official, SHA256, HF_ENDPOINT=server.address)
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
        assert output.splitlines()[-1] == str(home / "toy.pt")
        assert server.requests == [("/lab/models/resolve/main/toy.pt", None)]

    def test_offline_by_the_environment(self, server: FileServer, home: Path) -> None:
        process = self.start("", f"{server.address}/toy.pt", SHA256, HF_HUB_OFFLINE="1")
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "DownloadError: cannot fetch toy: HF_HUB_OFFLINE" in errors
        assert server.requests == []

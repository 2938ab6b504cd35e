"""The catalogue of official model checkpoints, and their verified download.

Checkpoints are read by `samg_fast.export`, not here. Importing this module imports neither torch nor the download
library.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samg_fast.bundle.bundle import sha256_of
from samg_fast.errors import CheckpointError, DownloadError, InputError, MissingExtraError
from samg_fast.files import cache_folder, replacing, write_text

__all__ = ["CHECKPOINTS", "Checkpoint", "Progress", "expected_sha256", "find", "folder", "path_of", "pull"]

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes downloaded so far, and the total if the server reports it."""


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights published by the authors of a model.

    Parameters
    ----------
    name : str
        The name that `find` accepts: ``"efficientvit-sam-l0"``.
    url : str
        Where it is published.
    sha256 : str
        The SHA-256 of the file, 64 hexadecimal digits.
    size : int
        Its size in bytes, rounded to a megabyte.
    parameters : int
        Number of parameters of the model, rounded as its authors do.
    page : str
        The page that describes it.
    license, license_url : str
        The SPDX identifier of its licence, and the address of its text.
    repo : str or None
        The repository on the Hugging Face Hub that holds it; None if it is published elsewhere.
    """

    name: str
    url: str
    sha256: str
    size: int
    parameters: int
    page: str
    license: str
    license_url: str
    repo: str | None = None

    @property
    def file(self) -> str:
        """The name of the file."""
        return self.url.rpartition("/")[2]


def _efficientvit_sam(size: str, megabytes: int, parameters: int, sha256: str) -> Checkpoint:
    repo = "mit-han-lab/efficientvit-sam"
    return Checkpoint(
        name=f"efficientvit-sam-{size}",
        url=f"https://huggingface.co/{repo}/resolve/main/efficientvit_sam_{size}.pt",
        sha256=sha256,
        size=megabytes * 1_000_000,
        parameters=parameters,
        page=f"https://huggingface.co/{repo}",
        license="Apache-2.0",
        license_url=f"https://huggingface.co/{repo}/blob/main/LICENSE.txt",
        repo=repo,
    )


def _dinov2(size: str, registers: bool, megabytes: int, parameters: int, sha256: str) -> Checkpoint:
    return Checkpoint(
        name=f"dinov2-{size}{'-reg' * registers}",
        url=f"https://dl.fbaipublicfiles.com/dinov2/dinov2_{size}/dinov2_{size}{'_reg4' * registers}_pretrain.pth",
        sha256=sha256,
        size=megabytes * 1_000_000,
        parameters=parameters,
        page="https://github.com/facebookresearch/dinov2",
        license="Apache-2.0",
        license_url="https://github.com/facebookresearch/dinov2/blob/main/LICENSE",
    )


# EfficientViT-SAM's hashes are from scripts/install.sh of InterDigitalInc/CompressAI-Vision; the hub's pages of l1, xl0
# and xl1 show the same. Meta publishes no hashes for DINOv2: these are from
# src/refiners/conversion/models/dinov2.py of finegrain-ai/refiners, and other projects list the same.
CHECKPOINTS: tuple[Checkpoint, ...] = (
    _efficientvit_sam("l0", 139, 34_800_000, "c4f994b01a16d48bcf2fbbb089448cfbf58fae5811edfa8113c953b8b8cc64b8"),
    _efficientvit_sam("l1", 191, 47_700_000, "fa151df2b9b96896accd505470755cdd293a4c50cdabac95478f3fbd86d9152b"),
    _efficientvit_sam("l2", 246, 61_300_000, "d4bfd842224cbb99de09acc3325e81ac5b7e8725c8fbdab152305e5d934bfe4a"),
    _efficientvit_sam("xl0", 468, 117_000_000, "9bc2f87bd23d6e6d1f7b5beff910f98835c7c333fac73e695bac0bec685968f8"),
    _efficientvit_sam("xl1", 814, 203_300_000, "10f42277679427c1183dcff19758e536aa86bcc4304e4b387ff48865784be05c"),
    _dinov2("vits14", False, 88, 21_000_000, "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9"),
    _dinov2("vitb14", False, 346, 86_000_000, "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73"),
    _dinov2("vitl14", False, 1218, 300_000_000, "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428"),
    _dinov2("vitg14", False, 4546, 1_100_000_000, "baf8467e50af277596bbbafa06887c177ee899ab46033649c383577d7e9309d3"),
    _dinov2("vits14", True, 88, 21_000_000, "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb"),
    _dinov2("vitb14", True, 346, 86_000_000, "73182a088cf94833c94b1666d1c99e02fe87e2007bff57b564fb6206e25dba71"),
    _dinov2("vitl14", True, 1218, 300_000_000, "36e4deffbaef061a2576705b0c36f93621e2ae20bf6274694821b0b492551b51"),
    _dinov2("vitg14", True, 4546, 1_100_000_000, "746ecb8c6301c645c5c855be91687d274587d6e48fdaec4a729753160b34a283"),
)
"""The official checkpoints."""


def find(name: str) -> Checkpoint:
    """Return a checkpoint by its name.

    Parameters
    ----------
    name : str
        The full name (``"efficientvit-sam-l0"``, ``"dinov2-vits14-reg"``) or its short form (``"l0"``,
        ``"vits14-reg"``).

    Raises
    ------
    InputError
        There is no such checkpoint; the message lists the known names.
    """
    for checkpoint in CHECKPOINTS:
        if name in (checkpoint.name, checkpoint.name.removeprefix("efficientvit-sam-").removeprefix("dinov2-")):
            return checkpoint
    raise InputError(f"there is no checkpoint {name!r}; there are {', '.join(known.name for known in CHECKPOINTS)}")


def folder() -> Path:
    """Return the folder of checkpoints in the user's cache, ``samg-fast/checkpoints``, whether it exists or not."""
    return cache_folder() / "checkpoints"


def expected_sha256(name: str) -> str:
    """Return the expected SHA-256 of a checkpoint: the one last given to `pull`, or else the catalogue's.

    Raises
    ------
    InputError
        There is no such checkpoint.
    CheckpointError
        The file that records a given SHA-256 is damaged.
    """
    checkpoint = find(name)
    record = _record(folder() / checkpoint.file)
    try:
        return _digits(record.read_text(encoding="utf-8").split()[0])
    except (FileNotFoundError, NotADirectoryError):
        return checkpoint.sha256
    except (OSError, ValueError, IndexError) as error:
        raise CheckpointError(f"{record} holds no SHA-256; remove it, and pull {checkpoint.name} again") from error


def path_of(name: str) -> Path | None:
    """Return the path of a checkpoint if it is on disk and undamaged, or else None.

    This reads the whole file to compute its SHA-256.

    Raises
    ------
    InputError
        There is no such checkpoint.
    CheckpointError
        The file that records a SHA-256 given to `pull` is damaged.
    """
    path = folder() / find(name).file
    expected = expected_sha256(name)
    try:
        return path if path.is_file() and sha256_of(path) == expected else None
    except OSError:
        return None


def pull(name: str, *, sha256: str | None = None, progress: Progress | None = None) -> Path:
    """Download a checkpoint into `folder` unless it is there, and return its path.

    An interrupted download is resumed. The file gets its final name only after its SHA-256 has been verified. A file
    that the user put there is verified the same way and never changed. ``HF_HUB_OFFLINE=1`` disables downloads.

    Parameters
    ----------
    name : str
        As for `find`.
    sha256 : str, optional
        Expect this SHA-256, 64 hexadecimal digits, instead of the catalogue's, now and in later calls. Use it if the
        publisher has replaced the file.
    progress : callable, optional
        Called with the number of bytes downloaded so far and the total (None if the server does not report it).

    Raises
    ------
    InputError
        There is no such checkpoint, or `sha256` is not a SHA-256.
    CheckpointError
        The file has another SHA-256 than expected.
    DownloadError
        The download failed: no network, no such page, a full disk, or a folder that is not writable.
    FileError
        The file was downloaded, but cannot be renamed.
    MissingExtraError
        The packages for downloading are not installed.
    """
    checkpoint = find(name)
    path = folder() / checkpoint.file
    expected = expected_sha256(name) if sha256 is None else _digits(sha256)
    if not path.exists():
        with _locked(checkpoint, path):
            if not path.exists():  # another process may have pulled it meanwhile
                _fetch(checkpoint, path, expected, progress)
    _check(checkpoint, path, expected)
    if sha256 is not None and expected != expected_sha256(name):
        write_text(_record(path), f"{expected}  {path.name}\n")
    return path


def _digits(sha256: str) -> str:
    digits = sha256.strip().lower()
    if len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
        raise InputError(f"sha256 is {sha256!r}; expected 64 hexadecimal digits")
    return digits


def _record(path: Path) -> Path:
    """Return the path of the file that records a SHA-256 given by the user, in the format of ``sha256sum -c``."""
    return path.with_name(f"{path.name}.sha256")


def _check(checkpoint: Checkpoint, path: Path, expected: str) -> None:
    """Raise CheckpointError if a file is not the checkpoint; it is not deleted, as it may be the user's."""
    if not path.is_file():
        raise CheckpointError(f"{path} is no file; expected checkpoint {checkpoint.name}")
    try:
        found = sha256_of(path)
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror or error}") from error
    if found != expected:
        raise CheckpointError(
            f"{path} is not checkpoint {checkpoint.name}, or is truncated or altered: its SHA-256 is {found}, "
            f"expected {expected}; remove it to pull it again"
        )


@contextmanager
def _locked(checkpoint: Checkpoint, path: Path) -> Iterator[None]:
    """Hold the lock of a checkpoint, so that only one process at a time writes its partial file."""
    try:
        from filelock import FileLock
    except ModuleNotFoundError as error:
        raise MissingExtraError("pulling checkpoints", "export") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        lock.acquire()
    except OSError as error:
        raise DownloadError(f"cannot fetch {checkpoint.name} into {path.parent}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def _fetch(checkpoint: Checkpoint, path: Path, expected: str, progress: Progress | None) -> None:
    """Download to a partial file beside `path`, and rename it to `path` once its SHA-256 is verified."""
    part = path.with_name(f".{path.name}.part")
    url = _download(checkpoint, path, part, progress)
    found = sha256_of(part)
    if found != expected:
        part.unlink()  # resuming from it could never succeed
        raise CheckpointError(
            f"what came from {url} is not checkpoint {checkpoint.name}: its SHA-256 is {found}, expected {expected}; "
            "it was discarded, so pull again, with the new SHA-256 if the publisher has replaced the file"
        )
    with replacing(path) as temporary:
        part.replace(temporary)


def _download(checkpoint: Checkpoint, path: Path, part: Path, progress: Progress | None) -> str:
    """Download the rest of `part`, and return the URL."""
    try:
        import httpx2
        from huggingface_hub import hf_hub_url, is_offline_mode
        from huggingface_hub.errors import HfHubHTTPError
        from huggingface_hub.file_download import http_get
    except ModuleNotFoundError as error:
        raise MissingExtraError("pulling checkpoints", "export") from error

    # HF_ENDPOINT may name a mirror of the hub
    url = checkpoint.url if checkpoint.repo is None else hf_hub_url(checkpoint.repo, checkpoint.file)
    if is_offline_mode():
        raise DownloadError(
            f"cannot fetch {checkpoint.name}: HF_HUB_OFFLINE forbids it; get {url} some other way and put it at {path}"
        )
    try:
        with part.open("ab") as file, _quiet("huggingface_hub.file_download"):
            http_get(url, file, resume_size=file.tell(), tqdm_class=_bar(progress))
    except (OSError, httpx2.HTTPError) as error:
        whole = (
            isinstance(error, HfHubHTTPError) and error.response.status_code == 416
        )  # range not satisfiable: `part` is complete
        if not whole:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
            raise DownloadError(
                f"cannot fetch {checkpoint.name} from {url}: {reason}; pull again to go on where it stopped, "
                f"or get it some other way and put it at {path}"
            ) from error
    return url


def _bar(progress: Progress | None) -> Any:
    """Return a class with tqdm's interface, for the hub's library, that calls `progress` instead of drawing."""

    class Bar:
        def __init__(self, *, total: int | None = None, initial: int = 0, **_: object) -> None:
            self.total, self.here = total, 0
            self.update(initial)

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None: ...

        def update(self, size: int) -> None:
            self.here += size
            if progress is not None:
                progress(self.here, self.total)

    return Bar


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Suppress a logger's warnings: they are about failures that are retried or end in an error."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)

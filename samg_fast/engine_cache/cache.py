"""The engine cache: compiled networks on the disk, each good for one graph, library, GPU, precision and batches."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from samg_fast.engine_cache.key import CachedEngine, EngineKey
from samg_fast.engine_cache.sealed_file import is_sealed, read_header, read_sealed, write_sealed
from samg_fast.errors import DamagedFileError, FileError, MissingExtraError
from samg_fast.files import cache_folder

__all__ = ["EngineCache"]

_DIGEST = "[0-9a-f]{64}"

_log = logging.getLogger("samg_fast")


class EngineCache:
    """Engines in a folder, which several processes and machines may share.

    An engine has a file of its own, which appears whole or not at all. What is damaged is said in the log (logger
    ``samg_fast``, level WARNING) and counts as absent.

    Parameters
    ----------
    folder : str or os.PathLike, optional
        Made when something is put there; ``engines`` in `samg_fast.files.cache_folder` by default.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = Path(folder) if folder is not None else cache_folder() / "engines"
        self._said: set[str] = set()

    def path(self, key: EngineKey) -> Path:
        """Return where an engine is kept, whether it is there or not."""
        return self.folder / f"{key.digest}.engine"

    def get(self, key: EngineKey) -> tuple[CachedEngine, bytes] | None:
        """Return an engine, compared with its SHA-256; None if there is none."""
        path = self.path(key)
        read = self._read(path)
        if read is None:
            return None
        header, engine = read
        entry = self._entry(path, header, len(engine))
        return None if entry is None else (entry, engine)

    def find(self, key: EngineKey) -> tuple[CachedEngine, bytes] | None:
        """Return an engine, or else one that was built ahead of time and serves as well; None if there is neither."""
        found = self.get(key)
        if found is None:
            serving = (self.get(entry.key) for entry in self.entries() if entry.key.serves(key))
            found = next((each for each in serving if each is not None), None)
        return found

    def put(
        self, key: EngineKey, engine: bytes, *, bundle: str, role: str, parity: str, built: str | None = None
    ) -> CachedEngine:
        """Keep an engine, built now or at a time given. The caller holds the key's `lock`.

        Raises
        ------
        FileError
            It cannot be written.
        """
        built = built or datetime.now(timezone.utc).isoformat(timespec="seconds")
        path = self.path(key)
        header = {"key": asdict(key), "bundle": bundle, "role": role, "parity": parity, "built": built}
        self._write(path, header, engine, f"the engine of {bundle}'s {role}")
        return CachedEngine(key=key, bundle=bundle, role=role, parity=parity, built=built, size=len(engine), path=path)

    def entries(self) -> list[CachedEngine]:
        """List the engines, by bundle and role; their content is not read."""
        found = []
        for path in self._files("engine"):
            try:
                header, size = read_header(path)
            except FileNotFoundError:  # removed since
                continue
            except (OSError, DamagedFileError) as error:
                self._warn(path, error)
                continue
            entry = self._entry(path, header, size)
            if entry is not None:
                found.append(entry)
        return sorted(found, key=lambda entry: (entry.bundle, entry.role, entry.key.digest))

    def replaced(self, key: EngineKey, bundle: str, role: str) -> CachedEngine | None:
        """Return the latest of a network's engines for the same use but of another graph, version or recipe."""
        found = [each for each in self.entries() if each.network == (bundle, role) and key.replaces(each.key)]
        return max(found, key=lambda entry: entry.built, default=None)

    def stale(self) -> list[CachedEngine]:
        """List the engines of networks for which later ones were built for the same use.

        They may well be in use: by a machine with another version, or by another bundle of the same name.
        """
        entries = self.entries()
        return [
            old
            for old in entries
            if any(
                new.network == old.network and new.key.replaces(old.key) and new.built > old.built for new in entries
            )
        ]

    def remove(self, entry: CachedEngine) -> None:
        """Remove an engine, if it is still there.

        Raises
        ------
        FileError
            It cannot be removed.
        """
        _remove(entry.path)

    def clear(self) -> tuple[int, int]:
        """Remove every engine, timing cache and rest of a killed build; other files stay.

        Returns
        -------
        count, size : int
            How many files were removed, and how many bytes they had.

        Raises
        ------
        FileError
            One cannot be removed.
        """
        count = size = 0
        for path in self._files("engine", "timing", unfinished=True):
            digest = path.name.removeprefix(".")[:64]
            being_written = path.name.startswith(".")  # by a process that holds the lock, unless it was killed
            with self._locked(digest, "tensorrt-rtx", wait=False) if being_written else nullcontext(True) as unused:
                if unused and _is_ours(path):
                    size += path.stat().st_size
                    count += 1
                    _remove(path)
        return count, size

    def clear_stale(self) -> tuple[int, int]:
        """Remove every engine that is `stale`, and return how many there were, and how many bytes they had.

        Raises
        ------
        FileError
            One cannot be removed.
        """
        stale = self.stale()
        for entry in stale:
            self.remove(entry)
        return len(stale), sum(entry.size for entry in stale)

    @contextmanager
    def lock(self, key: EngineKey) -> Iterator[None]:
        """Let one process at a time build an engine; a killed one leaves nothing that the others would wait for.

        Raises
        ------
        FileError
            The folder cannot be written into.
        MissingExtraError
            filelock is not installed.
        """
        with self._locked(key.digest, key.backend, wait=False) as locked:
            if locked:
                yield
                return
        _log.info("another process builds this engine for %s: waiting for it", key.target)
        with self._locked(key.digest, key.backend, wait=True):
            yield

    def timing(self, key: EngineKey) -> bytes:
        """Return what earlier builds timed, with the same version on the same GPU; empty without any."""
        read = self._read(self._timing_path(key))
        return b"" if read is None else read[1]

    def put_timing(self, key: EngineKey, timing: bytes) -> None:
        """Keep what a build has timed.

        Raises
        ------
        FileError
            It cannot be written.
        """
        header = {"backend": key.backend, "version": key.version, "gpu": key.target}
        self._write(self._timing_path(key), header, timing, f"the timing cache of {key.backend} {key.version}")

    def _timing_path(self, key: EngineKey) -> Path:
        used = json.dumps([key.backend, key.version, key.platform, key.target])
        return self.folder / f"{hashlib.sha256(used.encode()).hexdigest()}.timing"

    def _files(self, *kinds: str, unfinished: bool = False) -> list[Path]:
        """List the files that are named as those kept here, and those that `files.replacing` writes beside them."""
        try:
            names = sorted(path.name for path in self.folder.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise FileError(f"cannot read the engine cache {self.folder}: {error.strerror or error}") from error
        suffix = rf"\.({'|'.join(kinds)})"
        ours = re.compile(rf"{_DIGEST}{suffix}" + rf"|\.{_DIGEST}\.[0-9a-f]{{8}}\.part{suffix}" * unfinished)
        return [self.folder / name for name in names if ours.fullmatch(name)]

    def _read(self, path: Path) -> tuple[dict[str, Any], bytes] | None:
        try:
            return read_sealed(path)
        except FileNotFoundError:
            return None
        except (OSError, DamagedFileError) as error:
            self._warn(path, error)
            return None

    def _entry(self, path: Path, header: dict[str, Any], size: int) -> CachedEngine | None:
        """Make sense of a header, which must be of the key that the file is named by."""
        try:
            values = header["key"]
            key = EngineKey(**{**values, **{name: tuple(values[name]) for name in ("capabilities", "batches")}})
            entry = CachedEngine(**{**header, "key": key}, size=size, path=path)
        except (KeyError, TypeError):
            self._warn(path, "was written by another version of this package")
            return None
        if self.path(key) != path:
            self._warn(path, f"is another engine than its name says: one for {key.target}")
            return None
        return entry

    def _write(self, path: Path, header: dict[str, Any], content: bytes, what: str) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            write_sealed(path, header, content)
        except FileError as error:
            cause = error.__cause__
            why = (cause.strerror if isinstance(cause, OSError) else None) or error
            free = shutil.disk_usage(self.folder).free
            raise FileError(
                f"cannot keep {what} in {self.folder}: {why}; it needs {len(content)} bytes, and {free} are free"
            ) from error

    @contextmanager
    def _locked(self, digest: str, backend: str, *, wait: bool) -> Iterator[bool]:
        """Hold a lock while the block runs; give False where another holds it and nobody shall wait."""
        try:
            from filelock import FileLock, Timeout
        except ModuleNotFoundError as error:
            raise MissingExtraError("the engine cache", backend) from error
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / f"{digest}.lock")
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            yield False
            return
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            yield True
        finally:
            lock.release()

    def _unwritable(self, error: OSError) -> FileError:
        return FileError(f"cannot write into the engine cache {self.folder}: {error.strerror or error}")

    def _warn(self, path: Path, why: object) -> None:
        reason = f"cannot be read: {why.strerror or why}" if isinstance(why, OSError) else why
        text = f"the cached file {path} is not used: it {reason}"
        if text not in self._said:  # a cache is looked into more than once for the same engine
            self._said.add(text)
            _log.warning("%s", text)


def _is_ours(path: Path) -> bool:
    try:
        return is_sealed(path)
    except FileNotFoundError:  # removed since
        return False
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"cannot remove {path}: {error.strerror or error}") from error

"""The engine cache: engines on disk, each valid for one graph, library, GPU, precision and set of batch sizes."""

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
    """Engines in a folder that several processes and machines may share.

    Each engine has its own file, which is written atomically. A damaged file is logged (logger ``samg_fast``, level
    WARNING) and treated as absent.

    Parameters
    ----------
    folder : str or os.PathLike, optional
        Created by the first write; by default ``engines`` in `samg_fast.files.cache_folder`.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = Path(folder) if folder is not None else cache_folder() / "engines"
        self._warned: set[str] = set()

    def path(self, key: EngineKey) -> Path:
        """Return the path of an engine, whether it exists or not."""
        return self.folder / f"{key.digest}.engine"

    def get(self, key: EngineKey) -> tuple[CachedEngine, bytes] | None:
        """Return an engine after verifying its SHA-256, or None if there is none."""
        path = self.path(key)
        read = self._read(path)
        if read is None:
            return None
        header, engine = read
        entry = self._entry(path, header, len(engine))
        return None if entry is None else (entry, engine)

    def find(self, key: EngineKey) -> tuple[CachedEngine, bytes] | None:
        """Return the engine of a key, or else one built ahead of time that also serves it, or None."""
        found = self.get(key)
        if found is None:
            serving = (self.get(entry.key) for entry in self.entries() if entry.key.serves(key))
            found = next((each for each in serving if each is not None), None)
        return found

    def put(
        self, key: EngineKey, engine: bytes, *, bundle: str, role: str, parity: str, built: str | None = None
    ) -> CachedEngine:
        """Store an engine, built at the given time or now. The caller must hold the key's `lock`.

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
        """Return the engines, sorted by bundle and role, without reading their content."""
        found = []
        for path in self._files("engine"):
            try:
                header, size = read_header(path)
            except FileNotFoundError:  # removed meanwhile
                continue
            except (OSError, DamagedFileError) as error:
                self._warn(path, error)
                continue
            entry = self._entry(path, header, size)
            if entry is not None:
                found.append(entry)
        return sorted(found, key=lambda entry: (entry.bundle, entry.role, entry.key.digest))

    def replaced(self, key: EngineKey, bundle: str, role: str) -> CachedEngine | None:
        """Return the latest engine of a network that differs from the key only in graph, version or recipe, or None."""
        found = [each for each in self.entries() if each.network == (bundle, role) and key.replaces(each.key)]
        return max(found, key=lambda entry: entry.built, default=None)

    def stale(self) -> list[CachedEngine]:
        """Return the engines that a later engine replaces.

        They may still be in use by a machine with another version, or by another bundle of the same name.
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
        """Remove an engine if it still exists.

        Raises
        ------
        FileError
            It cannot be removed.
        """
        _remove(entry.path)

    def clear(self) -> tuple[int, int]:
        """Remove every engine, timing cache and partial file of a killed build; other files stay.

        Returns
        -------
        count, size : int
            Number of removed files, and their total size in bytes.

        Raises
        ------
        FileError
            A file cannot be removed.
        """
        count = size = 0
        for path in self._files("engine", "timing", unfinished=True):
            digest = path.name.removeprefix(".")[:64]
            being_written = path.name.startswith(".")  # its writer holds the lock, unless it was killed
            with self._locked(digest, "tensorrt-rtx", wait=False) if being_written else nullcontext(True) as unused:
                if unused and _is_ours(path):
                    size += path.stat().st_size
                    count += 1
                    _remove(path)
        return count, size

    def clear_stale(self) -> tuple[int, int]:
        """Remove every `stale` engine; return their number and total size in bytes.

        Raises
        ------
        FileError
            A file cannot be removed.
        """
        stale = self.stale()
        for entry in stale:
            self.remove(entry)
        return len(stale), sum(entry.size for entry in stale)

    @contextmanager
    def lock(self, key: EngineKey) -> Iterator[None]:
        """Hold the lock of an engine, so that only one process builds it; the lock of a killed process is released.

        Raises
        ------
        FileError
            The folder is not writable.
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
        """Return the timing cache of earlier builds with the same version on the same GPU, or empty bytes."""
        read = self._read(self._timing_path(key))
        return b"" if read is None else read[1]

    def put_timing(self, key: EngineKey, timing: bytes) -> None:
        """Store the timing cache of a build.

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
        """Return the files named like cached files, with `unfinished` also the partial files of writers."""
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
        """Parse a header; warn and return None if another version wrote it or its key does not match the file name."""
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
        """Hold a lock while the block runs; yield False if another process holds it and `wait` is False."""
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
        if text not in self._warned:  # the same file may be read more than once
            self._warned.add(text)
            _log.warning("%s", text)


def _is_ours(path: Path) -> bool:
    try:
        return is_sealed(path)
    except FileNotFoundError:  # removed meanwhile
        return False
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"cannot remove {path}: {error.strerror or error}") from error

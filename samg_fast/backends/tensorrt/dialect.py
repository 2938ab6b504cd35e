"""Where TensorRT 10, TensorRT 11 and TensorRT-RTX differ: all that the rest of this package need not know."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import logging
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from samg_fast.devices.driver import Gpu
from samg_fast.errors import BackendError, MissingExtraError, first_line

__all__ = ["MODULES", "Dialect", "load"]

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""The module of each backend's library."""

_TITLES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
_KEPT_ERRORS = 4

_log = logging.getLogger("samg_fast")


@functools.cache
def load(backend: str) -> Dialect:
    """Import the library of a backend.

    Raises
    ------
    MissingExtraError
        It is not installed.
    BackendError
        It is installed, and cannot be imported: the message holds the import's own reason.
    """
    module = MODULES[backend]
    try:
        library = importlib.import_module(module)
    except (ImportError, OSError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == module:
            raise MissingExtraError(f"the {backend} backend", backend) from error
        raise BackendError(
            f"{module} cannot be loaded ({first_line(error)}); run: pip install 'samg-fast[{backend}]'"
        ) from error
    return Dialect(backend, library)


class Dialect:
    """One of the libraries.

    Parameters
    ----------
    backend : {"tensorrt", "tensorrt-rtx"}
    library : module

    Attributes
    ----------
    library : module
    messages : ILogger of the library
        What it logs; there is one, as the library takes the first it is given for the whole process.
    """

    def __init__(self, backend: str, library: Any) -> None:
        self.backend, self.library = backend, library
        self.version: str = library.__version__
        self.messages = _messages(library)
        self._rtx = backend == "tensorrt-rtx"

    @property
    def title(self) -> str:
        """Its name and version, for messages."""
        return f"{_TITLES[self.backend]} {self.version}"

    @property
    def cuda(self) -> tuple[int, int] | None:
        """The CUDA version that the installed wheel was made for; None where no wheel says it."""
        # Read from the wheel's name, tensorrt_cu13 for one: the library itself does not tell
        named = re.compile(rf"{MODULES[self.backend]}_cu(\d+)")
        for distribution in importlib.metadata.distributions():
            found = named.fullmatch((distribution.name or "").lower().replace("-", "_"))
            if found:
                return int(found[1]), 0
        return None

    @property
    def least_capability(self) -> tuple[int, int]:
        """The oldest GPUs on which it runs bundles, as a compute capability."""
        # TensorRT-RTX knows 7.5, but not its float32 matrix products, which every bundle has some of
        return (8, 0) if self._rtx else (0, 0)

    @property
    def capabilities(self) -> dict[str, Any]:
        """The compute capabilities that engines can be built for without such a GPU: ``"8.9"`` and so on."""
        known: dict[str, Any] = {}
        for name, member in self.library.ComputeCapability.__members__.items() if self._rtx else ():
            if named := re.fullmatch(r"SM(\d+)(\d)", name):
                known[f"{named[1]}.{named[2]}"] = member
        return known

    def untried(self, gpu: Gpu) -> str:
        """Say that nobody knows whether it runs on a GPU, of whose kind it does not speak; nothing if it does."""
        # NVIDIA says "and later" of the GPUs it is for, and the list goes from 8.9 to 12.0: whether that takes in what
        # lies between, and what comes after, is for whoever has such a GPU to find out, not for "auto"
        known = self.capabilities
        if not known or gpu.capability in known:
            return ""
        return f"{self.title} names compute capabilities {', '.join(known)}, not {gpu.capability}; name it to try it"

    def create_network(self, builder: Any) -> Any:
        """Make an empty network whose types are those of the graph, never chosen by the library."""
        if self._rtx or int(self.version.split(".")[0]) > 10:  # these know no other networks
            return builder.create_network(0)
        return builder.create_network(1 << int(self.library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))

    def create_config(self, builder: Any, capabilities: Sequence[str], timing_cache: bytes) -> Any:
        """Make a configuration: float32 is float32, engines are for some compute capabilities, or the GPU here."""
        library = self.library
        config = builder.create_builder_config()
        config.clear_flag(library.BuilderFlag.TF32)
        if self._rtx:
            # It would allocate memory inside a frame where shapes vary much, and no CUDA graph could be captured
            config.set_flag(library.BuilderFlag.REQUIRE_USER_ALLOCATION)
            targets = [self.capabilities[each] for each in capabilities] or [library.ComputeCapability.CURRENT]
            config.num_compute_capabilities = len(targets)  # none at all would mean every one it knows
            for index, target in enumerate(targets):
                config.set_compute_capability(target, index)
        else:
            cache = config.create_timing_cache(timing_cache)
            if cache is None or not config.set_timing_cache(cache, False):
                _log.warning("the timing cache is not of %s on this GPU: everything is timed anew", self.title)
                config.set_timing_cache(config.create_timing_cache(b""), False)
        return config

    def timing_cache(self, config: Any) -> bytes:
        """Return what a build has timed, for the next one; empty where the library times nothing."""
        return b"" if self._rtx else bytes(config.get_timing_cache().serialize())

    def contexts(self, engine: Any) -> Callable[[], Any]:
        """Return what makes execution contexts that work in the memory they are given, and do not change once warm."""
        library = self.library
        given = library.ExecutionContextAllocationStrategy.USER_MANAGED
        if not self._rtx:
            return functools.partial(engine.create_execution_context, given)
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(given)
        # By default other kernels are compiled for a shape in the background, and a captured frame never gets them
        config.dynamic_shapes_kernel_specialization_strategy = library.DynamicShapesKernelSpecializationStrategy.EAGER
        # What one context has compiled serves the others
        config.set_runtime_cache(config.create_runtime_cache())
        return functools.partial(engine.create_execution_context, config)

    def capturable(self, context: Any, stream: int) -> bool:
        """Say whether what a context queues on a stream can be captured as a CUDA graph; TensorRT's always can."""
        return bool(context.is_stream_capturable(stream)) if self._rtx else True

    def failure(self, what: str) -> BackendError:
        """Make an error of what the library said last."""
        return BackendError(f"{self.title} cannot {what}: {self.messages.words()}")


def _messages(library: Any) -> Any:
    severities = library.ILogger.Severity
    errors = (severities.INTERNAL_ERROR, severities.ERROR)

    class Messages(library.ILogger):  # type: ignore[misc]  # the base is known only when the library is
        """Keeps the errors that came last; warnings go to the log."""

        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self._errors: deque[str] = deque(maxlen=_KEPT_ERRORS)

        def log(self, severity: Any, msg: str) -> None:
            """Take a message; the library calls it, from any thread."""
            if severity in errors:
                self._errors.append(" ".join(msg.split()))
            elif severity == severities.WARNING:
                _log.debug("%s: %s", library.__name__, msg)

        def clear(self) -> None:
            """Forget what was said before."""
            self._errors.clear()

        def words(self) -> str:
            """Return the errors kept, and forget them."""
            words = "; ".join(self._errors) or "it does not say why"
            self._errors.clear()
            return words

    return Messages()

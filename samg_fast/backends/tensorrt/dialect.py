"""The differences between TensorRT 10, TensorRT 11 and TensorRT-RTX, hidden behind one class."""

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
        It is installed but cannot be imported; the message holds the reason of the failed import.
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
    """One of the two libraries, in its installed version.

    Parameters
    ----------
    backend : {"tensorrt", "tensorrt-rtx"}
    library : module

    Attributes
    ----------
    library : module
    messages : ILogger of the library
        Receives the library's log. There is only one, because the library uses the first for the whole process.
    """

    def __init__(self, backend: str, library: Any) -> None:
        self.backend, self.library = backend, library
        self.version: str = library.__version__
        self.messages = _messages(library)
        self._rtx = backend == "tensorrt-rtx"

    @property
    def title(self) -> str:
        """Name and version, for messages."""
        return f"{_TITLES[self.backend]} {self.version}"

    @property
    def cuda(self) -> tuple[int, int] | None:
        """The CUDA version that the installed wheel was built for; None if no wheel names one."""
        # Read from the name of the wheel (tensorrt_cu13), because the library does not report it
        named = re.compile(rf"{MODULES[self.backend]}_cu(\d+)")
        for distribution in importlib.metadata.distributions():
            found = named.fullmatch((distribution.name or "").lower().replace("-", "_"))
            if found:
                return int(found[1]), 0
        return None

    @property
    def min_capability(self) -> tuple[int, int]:
        """The minimum compute capability of GPUs on which it runs bundles."""
        # TensorRT-RTX supports 7.5, but has no float32 matrix products for it, which every bundle needs
        return (8, 0) if self._rtx else (0, 0)

    @property
    def capabilities(self) -> dict[str, Any]:
        """The compute capabilities that engines can be built for ahead of time: ``"8.9"`` and so on."""
        known: dict[str, Any] = {}
        for name, member in self.library.ComputeCapability.__members__.items() if self._rtx else ():
            if named := re.fullmatch(r"SM(\d+)(\d)", name):
                known[f"{named[1]}.{named[2]}"] = member
        return known

    def unverified_reason(self, gpu: Gpu) -> str:
        """Return why support for a GPU is unverified, or an empty string."""
        # NVIDIA documents the supported GPUs as "and later", but the list jumps from 8.9 to 12.0. It is unclear whether
        # GPUs in between and newer ones are supported, so "auto" does not choose the library for them
        known = self.capabilities
        if not known or gpu.capability in known:
            return ""
        return f"{self.title} names compute capabilities {', '.join(known)}, not {gpu.capability}; name it to try it"

    def create_network(self, builder: Any) -> Any:
        """Create an empty, strongly typed network: the graph determines all types, not the library."""
        if self._rtx or int(self.version.split(".")[0]) > 10:  # these create strongly typed networks only
            return builder.create_network(0)
        return builder.create_network(1 << int(self.library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))

    def create_config(self, builder: Any, capabilities: Sequence[str], timing_cache: bytes) -> Any:
        """Create a build configuration without TensorFloat-32, for compute capabilities or for the GPU here."""
        library = self.library
        config = builder.create_builder_config()
        config.clear_flag(library.BuilderFlag.TF32)
        if self._rtx:
            # Without it, memory may be allocated during a frame if shapes vary widely, which prevents CUDA graphs
            config.set_flag(library.BuilderFlag.REQUIRE_USER_ALLOCATION)
            targets = [self.capabilities[each] for each in capabilities] or [library.ComputeCapability.CURRENT]
            config.num_compute_capabilities = len(targets)  # 0 would mean every capability
            for index, target in enumerate(targets):
                config.set_compute_capability(target, index)
        else:
            cache = config.create_timing_cache(timing_cache)
            if cache is None or not config.set_timing_cache(cache, False):
                _log.warning("the timing cache is not of %s on this GPU: everything is timed anew", self.title)
                config.set_timing_cache(config.create_timing_cache(b""), False)
        return config

    def timing_cache(self, config: Any) -> bytes:
        """Return the timing cache of a build, to speed up the next one; empty for TensorRT-RTX, which times nothing."""
        return b"" if self._rtx else bytes(config.get_timing_cache().serialize())

    def contexts(self, engine: Any) -> Callable[[], Any]:
        """Return a factory of execution contexts that use the caller's workspace and compile nothing once warm."""
        library = self.library
        given = library.ExecutionContextAllocationStrategy.USER_MANAGED
        if not self._rtx:
            return functools.partial(engine.create_execution_context, given)
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(given)
        # By default, kernels specialised for a shape are compiled in the background; captured frames would not use them
        config.dynamic_shapes_kernel_specialization_strategy = library.DynamicShapesKernelSpecializationStrategy.EAGER
        # Contexts share the kernels they have compiled
        config.set_runtime_cache(config.create_runtime_cache())
        return functools.partial(engine.create_execution_context, config)

    def capturable(self, context: Any, stream: int) -> bool:
        """Return whether a context can be captured in a CUDA graph on a stream; TensorRT's contexts always can."""
        return bool(context.is_stream_capturable(stream)) if self._rtx else True

    def failure(self, what: str) -> BackendError:
        """Return an error with the last messages of the library."""
        return BackendError(f"{self.title} cannot {what}: {self.messages.take_errors()}")


def _messages(library: Any) -> Any:
    severities = library.ILogger.Severity
    errors = (severities.INTERNAL_ERROR, severities.ERROR)

    class Messages(library.ILogger):  # type: ignore[misc]  # the library, and so the base class, is imported at run time
        """Keeps the last errors; warnings go to the log."""

        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self._errors: deque[str] = deque(maxlen=_KEPT_ERRORS)

        def log(self, severity: Any, msg: str) -> None:
            """Receive a message; the library calls this from any thread."""
            if severity in errors:
                self._errors.append(" ".join(msg.split()))
            elif severity == severities.WARNING:
                _log.debug("%s: %s", library.__name__, msg)

        def clear(self) -> None:
            """Discard the errors."""
            self._errors.clear()

        def take_errors(self) -> str:
            """Return the errors as one text, and discard them."""
            text = "; ".join(self._errors) or "it does not say why"
            self._errors.clear()
            return text

    return Messages()

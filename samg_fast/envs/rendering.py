"""Off-screen MuJoCo rendering with exact ground truth.

MuJoCo renders a picture twice, once in colour and once with an identifier per pixel; the second gives the ground truth
that everything here is measured and trained with. Nothing in this module knows a task or a setting.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samg_fast.errors import MissingExtraError, SamgError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import mujoco

__all__ = ["KIND_FLOOR", "KIND_MOVING", "KIND_SKY", "KIND_STATIC", "Rendered", "RenderingError", "SceneRenderer"]
__all__ += ["cannot_start", "ensure_gl", "moving_bodies"]

KIND_SKY, KIND_FLOOR, KIND_STATIC, KIND_MOVING = 0, 1, 2, 3

_DEBIAN_PACKAGES = "libegl1 libgl1 libegl-mesa0 libgl1-mesa-dri (MUJOCO_GL=egl) or libosmesa6 (MUJOCO_GL=osmesa)"
_PROBE = "import mujoco; c = mujoco.GLContext(8, 8); c.make_current(); c.free()"


class RenderingError(SamgError, RuntimeError):
    """Off-screen rendering cannot start on this machine."""


def cannot_start(error: Exception) -> RenderingError:
    """Say in words that rendering did not start: with which OpenGL, why, and which Debian packages mend it."""
    used = os.environ.get("MUJOCO_GL", "the default")
    return RenderingError(
        f"off-screen rendering cannot start with MUJOCO_GL={used} ({error}); on Debian install {_DEBIAN_PACKAGES}"
    )


@dataclass(frozen=True)
class Rendered:
    """One rendered picture with its ground truth.

    Attributes
    ----------
    rgb : (H, W, 3) uint8
        The picture.
    body : (H, W) int32
        MuJoCo's identifier of the body seen at each pixel; -1 where no geom is seen.
    kind : (H, W) uint8
        0 sky (no geom), 1 a plane fixed to the world (a floor), 2 another thing that cannot move, 3 a body that moves
        relative to the world; a renderer may be told of bodies that count as 1 or 3 all the same. The ground truth of a
        task is ``kind == 3``.
    """

    rgb: NDArray[np.uint8]
    body: NDArray[np.int32]
    kind: NDArray[np.uint8]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Pixels of the ground truth, (H, W) bool."""
        moving: NDArray[np.bool_] = self.kind == KIND_MOVING
        return moving


def ensure_gl() -> str:
    """Choose an off-screen OpenGL for MuJoCo and say which.

    ``MUJOCO_GL`` is honoured if set. Otherwise EGL, then OSMesa are tried in a process of their own, since a failed
    attempt cannot be taken back inside this one.

    Returns
    -------
    str
        The value of ``MUJOCO_GL`` in force: "egl", "osmesa", "glfw" or whatever the user had set.

    Raises
    ------
    MissingExtraError
        MuJoCo is not installed.
    RenderingError
        Neither EGL nor OSMesa works here; names the Debian packages that mend it.
    """
    if importlib.util.find_spec("mujoco") is None:
        raise MissingExtraError("rendering", "dmc")
    chosen = os.environ.get("MUJOCO_GL")
    if chosen or sys.platform != "linux":
        return chosen or "default"
    if "mujoco" in sys.modules and not os.environ.get("DISPLAY"):
        # MuJoCo read the variable when it was imported, and without a display its default cannot render.
        raise RenderingError(
            "off-screen rendering was not chosen in time: import samg_fast.envs before mujoco, or set MUJOCO_GL=egl"
        )
    for candidate in ("egl", "osmesa"):
        environment = {**os.environ, "MUJOCO_GL": candidate, "PYOPENGL_PLATFORM": candidate}
        probe = subprocess.run([sys.executable, "-c", _PROBE], env=environment, capture_output=True, check=False)
        if probe.returncode == 0:
            os.environ["MUJOCO_GL"] = candidate
            os.environ["PYOPENGL_PLATFORM"] = candidate
            return candidate
    raise RenderingError(
        "off-screen rendering cannot start: tried MUJOCO_GL=egl and MUJOCO_GL=osmesa; "
        f"on Debian install {_DEBIAN_PACKAGES}"
    )


def moving_bodies(model: mujoco.MjModel) -> NDArray[np.bool_]:
    """Say for each body whether it can move relative to the world, (nbody,) bool.

    A body welded to the world, directly or through its parents, cannot: MuJoCo's ``body_weldid`` is 0 for it. A mocap
    body moves though nothing joins it.
    """
    mocap = np.asarray(model.body_mocapid) >= 0
    welded_to = np.asarray(model.body_weldid)
    moves: NDArray[np.bool_] = (welded_to != 0) | mocap | mocap[np.asarray(model.body_rootid)]
    return moves


class SceneRenderer:
    """Renders one MuJoCo model off-screen, in colour and as ground truth.

    Parameters
    ----------
    model : mujoco.MjModel
        The compiled model.
    size : (int, int)
        Height and width of the picture in pixels.
    floor : sequence of str
        Names of bodies that count as floor, such as a table.
    target : sequence of str
        Names of bodies that belong to the ground truth though they do not move.

    Raises
    ------
    RenderingError
        No OpenGL context can be made.

    Notes
    -----
    Not safe for use from several threads: an OpenGL context belongs to the thread that made it.
    """

    def __init__(
        self, model: mujoco.MjModel, size: tuple[int, int], floor: Sequence[str] = (), target: Sequence[str] = ()
    ) -> None:
        ensure_gl()
        import mujoco

        self._mujoco = mujoco
        self._model = model
        height, width = size
        visual = model.vis.global_
        own = visual.offheight, visual.offwidth
        # No larger than the picture: a model's own buffer may be of thousands of pixels, all resolved in every frame.
        visual.offheight, visual.offwidth = height, width
        try:
            self._renderer = mujoco.Renderer(model, height, width)
        except Exception as error:
            raise cannot_start(error) from error
        finally:
            visual.offheight, visual.offwidth = own
        self._kind_of_geom = _kinds(model, floor, target)

    def render(self, data: mujoco.MjData, camera: Any = 0, *, shadows: bool = True) -> Rendered:
        """Render the state ``data`` as ``camera`` sees it.

        Parameters
        ----------
        data : mujoco.MjData
            The state; ``mj_forward`` must have run.
        camera : int, str or mujoco.MjvCamera
            A camera of the model or a free one.
        shadows : bool
            Draw shadows. Off is several times faster on a software renderer.

        Returns
        -------
        Rendered
            Picture and ground truth, pixel for pixel.
        """
        mujoco, renderer = self._mujoco, self._renderer
        renderer.update_scene(data, camera=camera)
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        rgb = renderer.render().copy()
        renderer.enable_segmentation_rendering()
        try:
            segmentation = renderer.render()
        finally:
            renderer.disable_segmentation_rendering()
        identifier, object_type = segmentation[..., 0], segmentation[..., 1]
        is_geom = object_type == int(mujoco.mjtObj.mjOBJ_GEOM)
        geom = np.where(is_geom, identifier, 0)
        kind = np.where(is_geom, self._kind_of_geom[geom], KIND_SKY).astype(np.uint8)
        # Tendons, sites and the like are drawn, but are no bodies: they stay where they are, with the static things.
        kind[(~is_geom) & (object_type >= 0)] = KIND_STATIC
        body = np.where(is_geom, np.asarray(self._model.geom_bodyid)[geom], -1).astype(np.int32)
        return Rendered(rgb, body, kind)

    def close(self) -> None:
        """Free the OpenGL context. Closing twice is harmless."""
        self._renderer.close()

    def __enter__(self) -> SceneRenderer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _kinds(model: mujoco.MjModel, floor: Sequence[str], target: Sequence[str]) -> NDArray[np.uint8]:
    """Say of each geom what kind of pixel it makes, (ngeom,) uint8."""
    import mujoco

    body = np.asarray(model.geom_bodyid)
    plane = np.asarray(model.geom_type) == int(mujoco.mjtGeom.mjGEOM_PLANE)
    kinds = np.where(plane, KIND_FLOOR, KIND_STATIC)
    kinds[moving_bodies(model)[body]] = KIND_MOVING
    for kind, names in ((KIND_FLOOR, floor), (KIND_MOVING, target)):
        kinds[np.isin(body, [model.body(name).id for name in names])] = kind
    return kinds.astype(np.uint8)

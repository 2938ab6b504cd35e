"""Off-screen MuJoCo rendering with exact ground truth.

MuJoCo renders a picture twice, once in colour and once with an identifier per pixel; the second gives the ground truth
that everything here is measured and trained with. Nothing in this module knows a task or a setting.
"""

from __future__ import annotations

import atexit
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samg_fast.envs.opengl import cannot_start, check_process, context_class, ensure_gl, own_context_kept, renders_here
from samg_fast.errors import RenderingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import mujoco

__all__ = ["KIND_FLOOR", "KIND_MOVING", "KIND_SKY", "KIND_STATIC", "Rendered", "SceneRenderer"]
__all__ += ["ensure_gl", "moving_bodies"]

KIND_SKY, KIND_FLOOR, KIND_STATIC, KIND_MOVING = 0, 1, 2, 3

_MAX_GEOMS = 10_000  # that a scene has room for


@dataclass(frozen=True)
class Rendered:
    """One rendered picture with its ground truth.

    Attributes
    ----------
    rgb : (H, W, 3) uint8
        The picture.
    body : (H, W) int32
        MuJoCo's identifier of the body seen at each pixel, of a skin the first one it hangs on; -1 where none is seen.
    kind : (H, W) uint8
        0 sky (nothing), 1 a plane or terrain fixed to the world (a floor), 2 another thing that cannot move, 3 a body
        that moves relative to the world; a renderer may be told of bodies that count as 1 or 3 all the same. The ground
        truth of a task is ``kind == 3``.
    """

    rgb: NDArray[np.uint8]
    body: NDArray[np.int32]
    kind: NDArray[np.uint8]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Pixels of the ground truth, (H, W) bool."""
        moving: NDArray[np.bool_] = self.kind == KIND_MOVING
        return moving


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
        No OpenGL context can be made, or none that works, in a process forked from one that renders; or the picture is
        larger than OpenGL can render.

    Notes
    -----
    Threads may take turns, where OpenGL is EGL's; elsewhere a context belongs to the thread that made it.
    """

    def __init__(
        self, model: mujoco.MjModel, size: tuple[int, int], floor: Sequence[str] = (), target: Sequence[str] = ()
    ) -> None:
        self._gl: Any = None
        self._context: Any = None
        ensure_gl()
        check_process()
        import mujoco

        self._mujoco, self._model, self._size = mujoco, model, size
        height, width = size
        visual = model.vis.global_
        own = visual.offheight, visual.offwidth
        # No larger than the picture: a model's own buffer may be of thousands of pixels, all resolved in every frame.
        visual.offheight, visual.offwidth = height, width
        try:
            context = context_class()  # imported before anything looks at which context there is
            with own_context_kept():
                self._gl = context(width, height)
                self._gl.make_current()
                self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
                mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        except Exception as error:
            if "framebuffer" in str(error):  # MuJoCo's own words: OpenGL has started, and has no room for the picture
                raise RenderingError(f"size is {height}×{width}, which OpenGL cannot render here ({error})") from error
            raise cannot_start(error) from error
        finally:
            visual.offheight, visual.offwidth = own
        self._scene = mujoco.MjvScene(model, maxgeom=_MAX_GEOMS)
        self._option = mujoco.MjvOption()
        self._seen = _seen(model, floor, target)
        _close_at_exit(self)

    def draw(self, data: mujoco.MjData, camera: Any = 0, *, shadows: bool = True) -> NDArray[np.uint8]:
        """Render the state ``data`` as ``camera`` sees it, in colour.

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
        (H, W, 3) uint8 RGB
        """
        mujoco = self._mujoco
        if not isinstance(camera, mujoco.MjvCamera):
            fixed = mujoco.MjvCamera()
            fixed.type, fixed.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, self._model.camera(camera).id
            camera = fixed
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self._model, data, self._option, None, camera, everything, self._scene)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        return self._pixels()

    def truth(self) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Say what is seen where in what was drawn last, though the state may have moved on since.

        Returns
        -------
        body : (H, W) int32
        kind : (H, W) uint8
            As in `Rendered`.
        """
        flags = self._mujoco.mjtRndFlag
        identify = [int(flags.mjRND_SEGMENT), int(flags.mjRND_IDCOLOR)]
        self._scene.flags[identify] = True
        try:
            colour = self._pixels().astype(np.int32)
        finally:
            self._scene.flags[identify] = False
        drawn = colour[..., 0] | colour[..., 1] << 8 | colour[..., 2] << 16
        # What MuJoCo draws has the numbers from 1 up; where nothing is, is 0.
        bodies = np.full(self._scene.ngeom + 1, -1, np.int32)
        kinds = np.full(self._scene.ngeom + 1, KIND_SKY, np.uint8)
        for each in self._scene.geoms[: self._scene.ngeom]:
            if each.segid >= 0:
                # Tendons, sites and the like are no bodies: they stay where they are, with the static things.
                bodies[each.segid + 1], kinds[each.segid + 1] = self._seen.get(
                    (each.objtype, each.objid), (-1, KIND_STATIC)
                )
        return bodies[drawn], kinds[drawn]

    def render(self, data: mujoco.MjData, camera: Any = 0, *, shadows: bool = True) -> Rendered:
        """Render the state ``data`` as ``camera`` sees it: picture and ground truth, pixel for pixel.

        Parameters are those of `draw`.
        """
        rgb = self.draw(data, camera, shadows=shadows)
        return Rendered(rgb, *self.truth())

    def upload(self) -> None:
        """Copy the model's textures and terrains to the graphics memory again, where they have changed since."""
        with self._current():
            for texture in range(self._model.ntex):
                self._mujoco.mjr_uploadTexture(self._model, self._context, texture)
            for terrain in range(self._model.nhfield):
                self._mujoco.mjr_uploadHField(self._model, self._context, terrain)

    def close(self) -> None:
        """Free the OpenGL context. Closing twice is harmless."""
        if self._gl is None or not renders_here():  # what a forked process has is its parent's
            return
        if self._context is not None:
            # MuJoCo frees what has these numbers in whatever context is current, and that may be another renderer's.
            with self._current():
                self._context.free()
            self._context = None
        with own_context_kept():
            self._gl.free()
        self._gl = None

    def __enter__(self) -> SceneRenderer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Have this OpenGL context for a while."""
        with own_context_kept():
            try:
                self._gl.make_current()
            except Exception as error:  # whatever PyOpenGL raises
                raise RenderingError(
                    "this OpenGL context is in use on another thread: threads must take turns"
                ) from error
            yield

    def _pixels(self) -> NDArray[np.uint8]:
        """Render the scene as it stands, (H, W, 3) uint8."""
        height, width = self._size
        pixels = np.empty((height, width, 3), np.uint8)
        place = self._mujoco.MjrRect(0, 0, width, height)
        with self._current():
            self._mujoco.mjr_render(place, self._scene, self._context)
            self._mujoco.mjr_readPixels(pixels, None, place, self._context)
        return pixels[::-1].copy()  # OpenGL's first row is the lowest


def _seen(model: mujoco.MjModel, floor: Sequence[str], target: Sequence[str]) -> dict[tuple[int, int], tuple[int, int]]:
    """Say of each geom and each skin, by MuJoCo's type and number, whose body it is and what kind of pixel it makes."""
    import mujoco

    grounds = [int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_HFIELD)]
    kind_of_body = np.where(moving_bodies(model), KIND_MOVING, KIND_STATIC)
    for kind, names in ((KIND_FLOOR, floor), (KIND_MOVING, target)):
        kind_of_body[[model.body(name).id for name in names]] = kind
    # A skin hangs on several bodies, its bones; the first stands for all.
    bones = np.asarray(model.skin_bonebodyid)[np.asarray(model.skin_boneadr)]
    seen: dict[tuple[int, int], tuple[int, int]] = {}
    for of, bodies in ((mujoco.mjtObj.mjOBJ_GEOM, model.geom_bodyid), (mujoco.mjtObj.mjOBJ_SKIN, bones)):
        for index, body in enumerate(np.asarray(bodies).tolist()):
            seen[int(of), index] = body, int(kind_of_body[body])
    for geom in np.flatnonzero(np.isin(model.geom_type, grounds)).tolist():
        body, kind = seen[int(mujoco.mjtObj.mjOBJ_GEOM), geom]
        if kind == KIND_STATIC:
            seen[int(mujoco.mjtObj.mjOBJ_GEOM), geom] = body, KIND_FLOOR
    return seen


_open: weakref.WeakSet[SceneRenderer] = weakref.WeakSet()


def _close_at_exit(renderer: SceneRenderer) -> None:
    """See to it that a renderer nobody closed is closed before the OpenGL under it is."""
    _open.add(renderer)
    # Last come, first served: MuJoCo's own, which ends EGL, came with the first context.
    atexit.unregister(_close_all)
    atexit.register(_close_all)


def _close_all() -> None:
    for renderer in list(_open):
        renderer.close()

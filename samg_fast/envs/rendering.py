"""Off-screen MuJoCo rendering with exact ground truth.

MuJoCo renders each image twice: in colour, and with an object identifier per pixel. The second gives the ground truth
for measuring and training. Nothing in this module depends on a task or a setting.
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

from samg_fast.envs.opengl import (
    check_process,
    context_class,
    ensure_gl,
    in_rendering_process,
    preserved_context,
    start_error,
)
from samg_fast.errors import InputTypeError, RenderingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import mujoco

__all__ = ["KIND_FLOOR", "KIND_MOVING", "KIND_SKY", "KIND_STATIC", "Rendered", "SceneRenderer"]
__all__ += ["ensure_gl", "moving_bodies"]

KIND_SKY, KIND_FLOOR, KIND_STATIC, KIND_MOVING = 0, 1, 2, 3

_MAX_GEOMS = 10_000  # capacity of a scene


@dataclass(frozen=True)
class Rendered:
    """One rendered image with its ground truth.

    Attributes
    ----------
    rgb : (H, W, 3) uint8
        The image.
    body : (H, W) int32
        MuJoCo's identifier of the body seen at each pixel, -1 where there is none. A skin has the identifier of its
        first bone.
    kind : (H, W) uint8
        0 sky (nothing), 1 a plane or terrain fixed to the world (floor), 2 anything else that cannot move, 3 a body
        that moves relative to the world. `SceneRenderer` can be told to count further bodies as 1 or 3. The ground
        truth mask of a task is ``kind == 3``.
    """

    rgb: NDArray[np.uint8]
    body: NDArray[np.int32]
    kind: NDArray[np.uint8]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Ground truth mask, (H, W) bool."""
        moving: NDArray[np.bool_] = self.kind == KIND_MOVING
        return moving


def moving_bodies(model: mujoco.MjModel) -> NDArray[np.bool_]:
    """Return for each body whether it can move relative to the world, (nbody,) bool.

    A body welded to the world, directly or through its parents, cannot move: its ``body_weldid`` is 0 in MuJoCo. A
    mocap body, and what is attached to it, can move without a joint.
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
        Height and width of the image in pixels.
    floor : sequence of str
        Names of further bodies that count as floor, such as a table.
    target : sequence of str
        Names of bodies that belong to the ground truth mask although they do not move.

    Raises
    ------
    RenderingError
        No OpenGL context can be created, this process was forked from one that renders, or the image is larger than
        OpenGL can render.

    Notes
    -----
    With EGL, threads may take turns; otherwise a context is bound to the thread that created it.
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
        original = visual.offheight, visual.offwidth
        # A buffer of the image's size: a model may ask for a far larger one, which would be resolved in every frame.
        visual.offheight, visual.offwidth = height, width
        try:
            context = context_class()  # imports mujoco.egl, which preserved_context looks for
            with preserved_context():
                self._gl = context(width, height)
                self._gl.make_current()
                self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
                mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        except Exception as error:
            if "framebuffer" in str(error):  # MuJoCo's word: OpenGL has started, but the image is too large for it
                raise RenderingError(f"size is {height}×{width}, which OpenGL cannot render here ({error})") from error
            raise start_error(error) from error
        finally:
            visual.offheight, visual.offwidth = original
        self._scene = mujoco.MjvScene(model, maxgeom=_MAX_GEOMS)
        self._option = mujoco.MjvOption()
        self._labels = _label_objects(model, floor, target)
        _close_at_exit(self)

    def draw(self, data: mujoco.MjData, camera: Any = 0, *, shadows: bool = True) -> NDArray[np.uint8]:
        """Render the state ``data`` as ``camera`` sees it, in colour.

        Parameters
        ----------
        data : mujoco.MjData
            The state; ``mj_forward`` must have run.
        camera : int, str or mujoco.MjvCamera
            A camera of the model, or a free camera.
        shadows : bool
            Draw shadows. Without them a software renderer is several times faster.

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
        """Return the ground truth of the image drawn last, even if the state has changed since.

        Returns
        -------
        body : (H, W) int32
        kind : (H, W) uint8
            As in `Rendered`.
        """
        flags = self._mujoco.mjtRndFlag
        segmentation = [int(flags.mjRND_SEGMENT), int(flags.mjRND_IDCOLOR)]
        self._scene.flags[segmentation] = True
        try:
            colour = self._pixels().astype(np.int32)
        finally:
            self._scene.flags[segmentation] = False
        segment = colour[..., 0] | colour[..., 1] << 8 | colour[..., 2] << 16
        # MuJoCo numbers what it draws from 1; 0 is the background.
        bodies = np.full(self._scene.ngeom + 1, -1, np.int32)
        kinds = np.full(self._scene.ngeom + 1, KIND_SKY, np.uint8)
        for each in self._scene.geoms[: self._scene.ngeom]:
            if each.segid >= 0:
                # Tendons, sites and the like belong to no body, and count as static.
                bodies[each.segid + 1], kinds[each.segid + 1] = self._labels.get(
                    (each.objtype, each.objid), (-1, KIND_STATIC)
                )
        return bodies[segment], kinds[segment]

    def render(self, data: mujoco.MjData, camera: Any = 0, *, shadows: bool = True) -> Rendered:
        """Render the state ``data`` as ``camera`` sees it: image and ground truth, pixel for pixel.

        Parameters are those of `draw`.
        """
        rgb = self.draw(data, camera, shadows=shadows)
        return Rendered(rgb, *self.truth())

    def upload(self) -> None:
        """Copy the model's textures and terrains to graphics memory again, after they have changed."""
        with self._current():
            for texture in range(self._model.ntex):
                self._mujoco.mjr_uploadTexture(self._model, self._context, texture)
            for terrain in range(self._model.nhfield):
                self._mujoco.mjr_uploadHField(self._model, self._context, terrain)

    def close(self) -> None:
        """Free the OpenGL context; closing twice does nothing."""
        if self._gl is None or not in_rendering_process():  # a forked process must not free its parent's context
            return
        if self._context is not None:
            # Make this context current first: MuJoCo frees objects by number in whatever context is current, which may
            # be another renderer's.
            with self._current():
                self._context.free()
            self._context = None
        with preserved_context():
            self._gl.free()
        self._gl = None

    def __reduce__(self) -> Any:
        raise InputTypeError(
            "a SceneRenderer cannot be copied or pickled, as its OpenGL context belongs to one process"
        )

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
        """Make this OpenGL context current while the block runs."""
        with preserved_context():
            try:
                self._gl.make_current()
            except Exception as error:  # whatever PyOpenGL raises
                raise RenderingError(
                    "this OpenGL context is in use on another thread: threads must take turns"
                ) from error
            yield

    def _pixels(self) -> NDArray[np.uint8]:
        """Render the scene with its current flags, (H, W, 3) uint8."""
        height, width = self._size
        pixels = np.empty((height, width, 3), np.uint8)
        viewport = self._mujoco.MjrRect(0, 0, width, height)
        with self._current():
            self._mujoco.mjr_render(viewport, self._scene, self._context)
            self._mujoco.mjr_readPixels(pixels, None, viewport, self._context)
        return pixels[::-1].copy()  # OpenGL's first row is the bottom one


def _label_objects(
    model: mujoco.MjModel, floor: Sequence[str], target: Sequence[str]
) -> dict[tuple[int, int], tuple[int, int]]:
    """Map each geom and skin, as MuJoCo's (type, index), to its (body, kind)."""
    import mujoco

    grounds = [int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_HFIELD)]
    kind_of_body = np.where(moving_bodies(model), KIND_MOVING, KIND_STATIC)
    for kind, names in ((KIND_FLOOR, floor), (KIND_MOVING, target)):
        kind_of_body[[model.body(name).id for name in names]] = kind
    # A skin is attached to several bodies, its bones; it counts as part of the first.
    bones = np.asarray(model.skin_bonebodyid)[np.asarray(model.skin_boneadr)]
    labels: dict[tuple[int, int], tuple[int, int]] = {}
    for object_type, bodies in ((mujoco.mjtObj.mjOBJ_GEOM, model.geom_bodyid), (mujoco.mjtObj.mjOBJ_SKIN, bones)):
        for index, body in enumerate(np.asarray(bodies).tolist()):
            labels[int(object_type), index] = body, int(kind_of_body[body])
    for geom in np.flatnonzero(np.isin(model.geom_type, grounds)).tolist():
        body, kind = labels[int(mujoco.mjtObj.mjOBJ_GEOM), geom]
        if kind == KIND_STATIC:
            labels[int(mujoco.mjtObj.mjOBJ_GEOM), geom] = body, KIND_FLOOR
    return labels


_open: weakref.WeakSet[SceneRenderer] = weakref.WeakSet()


def _close_at_exit(renderer: SceneRenderer) -> None:
    """Close the renderer at exit, if nobody has, before OpenGL itself shuts down."""
    _open.add(renderer)
    # Exit handlers run last in, first out. MuJoCo registers its own, which shuts EGL down, with the first context, so
    # this one is registered again after every new context.
    atexit.unregister(_close_all)
    atexit.register(_close_all)


def _close_all() -> None:
    for renderer in list(_open):
        renderer.close()

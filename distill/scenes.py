"""The scenes that training images are rendered from.

A `Source` builds `Scene` objects: a compiled MuJoCo model with a function that sets a random pose. Four domains of
dm_control are left out, to measure the bundle on domains that it has not seen.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samg_fast.envs.rendering import Rendered, SceneRenderer, ensure_gl, moving_bodies

from .primitives import random_scene

if TYPE_CHECKING:
    import mujoco

logger = logging.getLogger(__name__)

HELD_OUT_DOMAINS = frozenset({"reacher", "pendulum", "acrobot", "swimmer"})
"""dm_control domains that are not in any training image."""

# Domain → (weight among the suite's scenes, cameras to use, tasks with different models).
_SUITE: dict[str, tuple[float, tuple[int, ...], tuple[str, ...]]] = {
    "walker": (4, (0, 1), ("walk",)),
    "cartpole": (4, (0, 0, 1), ("swingup", "swingup", "swingup", "two_poles", "three_poles")),
    "ball_in_cup": (4, (0,), ("catch",)),
    "finger": (4, (0, 0, 1), ("spin", "spin", "turn_easy")),
    "cheetah": (4, (0, 1), ("run",)),
    "hopper": (4, (0, 1), ("stand",)),
    "quadruped": (4, (2, 2, 0, 1), ("walk", "run")),
    "humanoid": (1, (0, 1), ("walk",)),
    "humanoid_CMU": (0.7, (0, 1), ("stand",)),
    "manipulator": (1, (0,), ("bring_ball", "insert_peg")),
    "stacker": (0.7, (0,), ("stack_2",)),
    "fish": (1, (0, 1), ("swim",)),
    "point_mass": (0.7, (0,), ("easy",)),
    "dog": (0.7, (0, 1), ("walk",)),
    "lqr": (0.7, (0,), ("lqr_2_1", "lqr_6_2")),
}


@dataclass
class Scene:
    """A compiled model, and a function that poses it.

    Attributes
    ----------
    name : str
    model : mujoco.MjModel
    pose : callable
        ``pose(rng)`` returns a `mujoco.MjData` in a new random state, after ``mj_forward``.
    cameras : tuple of int
        Cameras of the model that show the moving bodies; may be empty.
    """

    name: str
    model: mujoco.MjModel
    pose: Callable[[np.random.Generator], mujoco.MjData]
    cameras: tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """A factory of scenes, and how often to use it."""

    name: str
    weight: float
    build: Callable[[np.random.Generator], Scene]


def _random_joints(model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
    """Move every joint that is limited or rotates to a random position; the root keeps its place."""
    import mujoco

    amount = rng.uniform(0.2, 1.0)
    for joint in range(model.njnt):
        kind, at = int(model.jnt_type[joint]), int(model.jnt_qposadr[joint])
        if kind == mujoco.mjtJoint.mjJNT_FREE:
            if rng.random() < 0.7:
                turn = rng.normal(size=4) * (0.3 if rng.random() < 0.6 else 2.0) + np.array([1.0, 0, 0, 0])
                data.qpos[at + 3 : at + 7] = turn / np.linalg.norm(turn)
        elif kind == mujoco.mjtJoint.mjJNT_BALL:
            turn = rng.normal(size=4) * 0.3 + np.array([1.0, 0, 0, 0])
            data.qpos[at : at + 4] = turn / np.linalg.norm(turn)
        elif model.jnt_limited[joint]:
            low, high = model.jnt_range[joint]
            middle = float(np.clip(data.qpos[at], low, high))
            data.qpos[at] = middle + amount * (rng.uniform(low, high) - middle)
        elif kind == mujoco.mjtJoint.mjJNT_HINGE and rng.random() < 0.5:
            data.qpos[at] += rng.normal() * (0.2 if model.nv > 3 and joint < 3 else 1.5)


def _posed(model: mujoco.MjModel) -> Callable[[np.random.Generator], mujoco.MjData]:
    import mujoco

    def pose(rng: np.random.Generator) -> mujoco.MjData:
        data = mujoco.MjData(model)
        if model.nkey and rng.random() < 0.5:
            mujoco.mj_resetDataKeyframe(model, data, int(rng.integers(model.nkey)))
        _random_joints(model, data, rng)
        mujoco.mj_forward(model, data)
        return data

    return pose


def _suite_scene(domain: str, cameras: tuple[int, ...], tasks: tuple[str, ...], rng: np.random.Generator) -> Scene:
    import mujoco
    from dm_control import suite

    environment = suite.load(domain, str(rng.choice(tasks)), task_kwargs={"random": int(rng.integers(1 << 31))})
    physics, spec = environment.physics, environment.action_spec()
    model = physics.model.ptr

    def pose(rng: np.random.Generator) -> mujoco.MjData:
        environment.reset()
        if rng.random() < 0.55:  # an initial state of the task, after some steps of random actions
            action = rng.uniform(-1, 1, spec.shape)
            for _ in range(int(rng.choice([0, 3, 15, 40]))):
                action = np.clip(0.7 * action + 0.6 * rng.normal(size=spec.shape), -1, 1)
                environment.step(action * (spec.maximum - spec.minimum) / 2 + (spec.maximum + spec.minimum) / 2)
        else:  # a random pose, such as a trained agent may reach
            with physics.reset_context():
                if domain in ("quadruped", "dog", "humanoid", "humanoid_CMU"):
                    physics.data.qpos[:] = model.qpos0
                _random_joints(model, physics.data.ptr, rng)
        mujoco.mj_forward(model, physics.data.ptr)
        return physics.data.ptr

    return Scene(domain, model, pose, cameras)


def _file_scene(path: Path, _rng: np.random.Generator) -> Scene:
    import mujoco

    model = mujoco.MjModel.from_xml_path(str(path))
    return Scene(path.stem, model, _posed(model), tuple(range(model.ncam)))


def _primitive_scene(rng: np.random.Generator) -> Scene:
    import mujoco

    model = mujoco.MjModel.from_xml_string(random_scene(rng))
    return Scene("primitives", model, _posed(model), ())


def _menagerie_scene(name: str, _rng: np.random.Generator) -> Scene:
    import mujoco_menagerie

    model = mujoco_menagerie.load(name)
    return Scene(name, model, _posed(model), ())


def _suite_sources() -> Iterator[Source]:
    total = sum(share for share, _, _ in _SUITE.values())
    for domain, (share, cameras, tasks) in _SUITE.items():
        yield Source(f"suite/{domain}", 0.6 * share / total, partial(_suite_scene, domain, cameras, tasks))


def _package_files(package: str, folder: str, names: tuple[str, ...], weight: float) -> Iterator[Source]:
    import importlib.util

    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        logger.warning("%s is not installed: its scenes are left out", package)
        return
    for name in names:
        path = Path(found.origin).parent / folder / f"{name}.xml"
        if path.exists():
            yield Source(f"{package}/{name}", weight / len(names), partial(_file_scene, path))


def _menagerie_sources() -> Iterator[Source]:
    """Yield MuJoCo Menagerie's robots. The package downloads a robot at its first use, which may fail offline."""
    try:
        import mujoco_menagerie

        names = [str(name) for name in mujoco_menagerie.names()]
        mujoco_menagerie.load(names[0])
    except Exception as error:
        logger.warning("mujoco-menagerie's robots are left out (%s: %s)", type(error).__name__, str(error)[:100])
        return
    for name in names:
        yield Source(f"menagerie/{name}", 0.1 / len(names), partial(_menagerie_scene, name))


@cache
def sources() -> tuple[Source, ...]:
    """Return every source of scenes on this machine, with weights that sum to one."""
    ensure_gl()
    found = [*_suite_sources(), Source("primitives", 0.25, _primitive_scene)]
    adroit = ("adroit_door", "adroit_hammer", "adroit_pen", "adroit_relocate")
    hands = ("reach", "manipulate_block", "manipulate_egg", "manipulate_pen")
    found += _package_files("gymnasium_robotics", "envs/assets/adroit_hand", adroit, 0.14)
    found += _package_files("gymnasium_robotics", "envs/assets/hand", hands, 0.02)
    found += _package_files("gymnasium_robotics", "envs/assets/fetch", ("reach", "pick_and_place"), 0.01)
    found += _package_files(
        "gymnasium", "envs/mujoco/assets", ("ant", "half_cheetah", "humanoid", "walker2d_v5", "pusher_v5"), 0.04
    )
    found += _menagerie_sources()
    total = sum(source.weight for source in found)
    return tuple(Source(source.name, source.weight / total, source.build) for source in found)


def randomise_look(model: mujoco.MjModel, rng: np.random.Generator) -> None:
    """Change colours, textures and lights of a model in place, before its renderer is created."""
    moving = moving_bodies(model)[np.asarray(model.geom_bodyid)]
    recolour = rng.random(2) < 0.5  # moving geoms, static geoms
    for chosen, geoms in zip(recolour, (moving, ~moving), strict=True):
        if not chosen:
            continue
        materials = {int(m) for m in np.asarray(model.geom_matid)[geoms] if m >= 0}
        for material in materials:
            model.mat_rgba[material, :3] = rng.random(3)
        if rng.random() < 0.3:
            for body in {int(b) for b in np.asarray(model.geom_bodyid)[geoms]}:
                colour = rng.random(3)
                for geom in np.flatnonzero(geoms & (np.asarray(model.geom_bodyid) == body)):
                    model.geom_rgba[geom, :3] = colour
                    if rng.random() < 0.8:
                        model.geom_matid[geom] = -1
    if rng.random() < 0.5:
        for texture in range(model.ntex):
            _recolour_texture(model, texture, rng)
    model.light_diffuse[:] = np.clip(np.asarray(model.light_diffuse) * rng.uniform(0.5, 1.4, (model.nlight, 1)), 0, 1)
    model.light_pos[:, :2] += rng.normal(0, 0.5, (model.nlight, 2))
    model.vis.headlight.ambient[:] = np.clip(np.asarray(model.vis.headlight.ambient) * rng.uniform(0.6, 1.6), 0, 1)
    model.vis.headlight.diffuse[:] = np.clip(np.asarray(model.vis.headlight.diffuse) * rng.uniform(0.6, 1.5), 0, 1)


def _recolour_texture(model: mujoco.MjModel, texture: int, rng: np.random.Generator) -> None:
    channels = int(model.tex_nchannel[texture])
    start = int(model.tex_adr[texture])
    size = int(model.tex_height[texture]) * int(model.tex_width[texture]) * channels
    pixels = np.asarray(model.tex_data[start : start + size]).reshape(-1, channels).astype(np.float32) / 255.0
    mixing = np.eye(3) + rng.normal(0.0, 0.5, (3, 3))
    pixels[:, :3] = np.clip((pixels[:, :3] - 0.4) @ mixing + rng.uniform(0.1, 0.8, 3), 0.0, 1.0)
    model.tex_data[start : start + size] = (pixels * 255).astype(np.uint8).ravel()


def _free_camera(scene: Scene, data: mujoco.MjData, rng: np.random.Generator) -> Any:
    import mujoco

    geoms = np.flatnonzero(moving_bodies(scene.model)[np.asarray(scene.model.geom_bodyid)])
    centres = np.asarray(data.geom_xpos)[geoms]
    middle = centres.mean(0) if len(geoms) else np.zeros(3)
    reach = np.linalg.norm(centres - middle, axis=1) + np.asarray(scene.model.geom_rbound)[geoms]
    extent = float(np.percentile(reach, 90)) if len(geoms) else 1.0
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.lookat[:] = middle + rng.normal(0.0, 0.25, 3) * extent
    camera.distance = extent * rng.uniform(1.6, 6.0)
    camera.azimuth, camera.elevation = (
        rng.uniform(0, 360),
        rng.choice([rng.uniform(-60, 0), rng.uniform(-90, -60)], p=[0.85, 0.15]),
    )
    return camera


def render_group(
    source: Source, rng: np.random.Generator, *, views: int, side: int, tries: int = 40
) -> list[Rendered] | None:
    """Render ``views`` images of one scene in random poses, partly with random cameras; its colours stay the same.

    Parameters
    ----------
    source : Source
    rng : numpy.random.Generator
    views : int
        Number of images.
    side : int
        Height and width in pixels.
    tries : int
        Maximum number of renders. Images where moving bodies are hardly visible, or cover most pixels, are dropped.

    Returns
    -------
    list of Rendered, or None
        None if the scene did not give enough usable images.
    """
    scene = source.build(rng)
    if rng.random() < 0.6:
        randomise_look(scene.model, rng)
    scene.model.vis.quality.shadowsize = 1024
    shadows = bool(rng.random() < 0.7)
    from_task_camera = bool(scene.cameras) and rng.random() < 0.65
    camera: Any = int(rng.choice(scene.cameras)) if from_task_camera else None
    images: list[Rendered] = []
    with SceneRenderer(scene.model, (side, side)) as renderer:
        for attempt in range(tries):
            data = scene.pose(rng)
            if not from_task_camera and (camera is None or attempt % 2 == 0):
                camera = _free_camera(scene, data, rng)
            rendered = renderer.render(data, camera, shadows=shadows)
            share = float(np.mean(rendered.mask))
            if 0.004 < share < 0.6:
                images.append(rendered)
            if len(images) == views:
                return images
    return None


def pack(images: list[Rendered]) -> dict[str, NDArray[np.uint8]]:
    """Stack a group into arrays: ``rgb`` (V, H, W, 3), ``body`` (V, H, W; 0 where no body) and ``kind`` (V, H, W)."""
    body = np.stack([np.clip(image.body + 1, 0, 255).astype(np.uint8) for image in images])
    return {
        "rgb": np.stack([rendered.rgb for rendered in images]),
        "body": body,
        "kind": np.stack([rendered.kind for rendered in images]),
    }

"""Random articulated objects made of capsules, spheres and boxes, as MJCF text.

A prompted segmenter must mainly know that parts which are joined and move together are one object, whatever they look
like. These scenes teach that without any robot.
"""

from __future__ import annotations

import numpy as np

_AXES = ("1 0 0", "0 1 0", "0 0 1")


def _numbers(values: object) -> str:
    return " ".join(f"{v:.4g}" for v in np.atleast_1d(np.asarray(values, float)))


def _rgb(rng: np.random.Generator) -> str:
    return _numbers(rng.random(3))


class _ObjectWriter:
    """Writes random objects as MJCF, from one random generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def geom(self, scale: float, material: str, *, thin: bool = False) -> tuple[str, np.ndarray]:
        """Return a geom of about ``scale`` metres, and the point where a child is attached."""
        rng = self.rng
        look = f'material="{material}"' if rng.random() < 0.7 else f'rgba="{_rgb(rng)} 1"'
        shape = rng.choice(["capsule", "capsule", "capsule", "sphere", "box", "cylinder", "ellipsoid"])
        if thin or shape == "capsule":
            direction = rng.normal(size=3)
            if self.planar:
                direction[1] = 0.0
            direction /= np.linalg.norm(direction) + 1e-9
            end = direction * scale * rng.uniform(0.6, 1.5)
            radius = scale * (rng.uniform(0.05, 0.12) if thin else rng.uniform(0.1, 0.3))
            return f'<geom type="capsule" fromto="0 0 0 {_numbers(end)}" size="{radius:.4g}" {look}/>', end
        half = scale * rng.uniform(0.2, 0.6, 3)
        size = {"sphere": half[:1], "cylinder": half[:2]}.get(str(shape), half)
        end = np.array([*(rng.uniform(-1, 1, 2) * half[:2]), rng.choice([-1.0, 1.0]) * half[2]])
        return f'<geom type="{shape}" size="{_numbers(size)}" {look}/>', end

    def branch(self, depth: int, scale: float, material: str, position: np.ndarray, *, thin: bool) -> str:
        """Return a body hinged at ``position`` with children down to ``depth``."""
        rng = self.rng
        geom, end = self.geom(scale, material, thin=thin)
        axis = _AXES[1] if self.planar else _AXES[rng.integers(3)]
        children = ""
        if depth > 0:
            for _ in range(rng.choice([1, 1, 1, 2, 3])):
                spread = end if thin or rng.random() < 0.7 else end * rng.uniform(-1.0, 1.0)
                child_material = material if rng.random() < 0.6 else f"m{rng.integers(6)}"
                children += self.branch(depth - 1, scale * rng.uniform(0.6, 1.0), child_material, spread, thin=thin)
        joint = f'<joint type="hinge" axis="{axis}" range="-100 100" limited="true"/>'
        return f'<body pos="{_numbers(position)}">{joint}{geom}{children}</body>'

    def tree(self, index: int) -> str:
        """Return one moving object: legged, a chain on a base, a cart on a rail, or a loose object."""
        rng = self.rng
        self.planar = bool(rng.random() < 0.5)
        scale, material = float(rng.uniform(0.12, 0.45)), f"m{rng.integers(6)}"
        at = np.array([rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4), rng.uniform(0.3, 1.2)]) * (1 + 0.5 * index)
        geom, end = self.geom(scale, material)
        kind = rng.choice(["loose", "legged", "legged", "chain", "chain", "cart"])
        thin = bool(rng.random() < (0.8 if kind in ("chain", "cart") else 0.25))
        if kind == "loose":
            extra = self.geom(scale, material)[0] if rng.random() < 0.4 else ""
            return f'<body pos="{_numbers(at)}"><freejoint/>{geom}{extra}</body>'
        if kind == "legged":
            limbs = "".join(
                self.branch(int(rng.integers(0, 3)), scale * rng.uniform(0.5, 1.0), material, end * side, thin=thin)
                for side in rng.uniform(-1, 1, rng.integers(2, 6))
            )
            return f'<body pos="{_numbers(at)}"><freejoint/>{geom}{limbs}</body>'
        if kind == "cart":
            rail = f'<geom type="capsule" fromto="-2 0 {at[2]:.3g} 2 0 {at[2]:.3g}" size="0.02" rgba="{_rgb(rng)} 1"/>'
            arms = self.branch(int(rng.integers(0, 3)), scale, f"m{rng.integers(6)}", np.zeros(3), thin=True)
            slide = '<joint type="slide" axis="1 0 0" range="-0.8 0.8" limited="true"/>'
            return f'{rail}<body pos="0 0 {at[2]:.3g}">{slide}{geom}{arms}</body>'
        base = f'<geom pos="{_numbers(at)}" type="sphere" size="{scale * 0.3:.3g}" rgba="{_rgb(rng)} 1"/>'
        chain = self.branch(int(rng.integers(1, 6)), scale, material, at, thin=thin)
        return (base if rng.random() < 0.5 else "") + chain

    planar = False


def _texture(rng: np.random.Generator, name: str) -> str:
    builtin = rng.choice(["checker", "checker", "gradient", "flat"])
    mark = rng.choice(["none", "none", "edge", "cross", "random"])
    return (
        f'<texture name="{name}" type="2d" builtin="{builtin}" rgb1="{_rgb(rng)}" rgb2="{_rgb(rng)}"'
        f' width="128" height="128" mark="{mark}" markrgb="{_rgb(rng)}" random="0.02"/>'
    )


def random_scene(rng: np.random.Generator) -> str:
    """Return the MJCF of a random scene: floor, sky, static objects, and one to three moving objects."""
    writer = _ObjectWriter(rng)
    # Some floors look like dm_control's, which most users have.
    suite_floor = rng.random() < 0.4
    floor_texture = (
        '<texture name="floor" type="2d" builtin="checker" rgb1=".1 .2 .3" rgb2=".2 .3 .4" width="128" height="128"/>'
        if suite_floor
        else _texture(rng, "floor")
    )
    sky = (".4 .6 .8", "0 0 0") if suite_floor else (_rgb(rng), _rgb(rng))
    materials = "".join(
        f'<texture name="t{i}" type="cube" builtin="flat" rgb1="{_rgb(rng)}" width="32" height="32" mark="random"'
        f' markrgb="{_rgb(rng)}" random="{rng.uniform(0, 0.2):.3g}"/><material name="m{i}" texture="t{i}"'
        f' specular="{rng.random():.2g}" shininess="{rng.random():.2g}"/>'
        if rng.random() < 0.3
        else f'<material name="m{i}" rgba="{_rgb(rng)} 1" specular="{rng.random():.2g}" reflectance="0"/>'
        for i in range(6)
    )
    static = ""
    if rng.random() < 0.9:
        static += (
            '<geom type="plane" size="6 6 .1" material="floor" pos="0 0 0"/>'
            if rng.random() < 0.8
            else '<geom type="plane" size="6 6 .1" material="floor" pos="0 1.2 0" euler="90 0 0"/>'
        )
    for _ in range(rng.choice([0, 1, 2, 4, 7])):
        place = np.array([*rng.uniform(-1.0, 1.0, 2), rng.uniform(0.0, 1.2)])
        geom = writer.geom(float(rng.uniform(0.05, 0.4)), f"m{rng.integers(6)}")[0]
        static += f'<body pos="{_numbers(place)}">{geom}</body>'
    moving = "".join(writer.tree(i) for i in range(rng.choice([1, 1, 1, 2, 3])))
    return f"""<mujoco><compiler angle="degree"/><option gravity="0 0 0"/>
<visual><headlight ambient="{_numbers(rng.uniform(0.1, 0.5))} .3 .3" diffuse=".5 .5 .5"/></visual>
<asset><texture name="sky" type="skybox" builtin="gradient" rgb1="{sky[0]}" rgb2="{sky[1]}" width="128" height="768"/>
{floor_texture}<material name="floor" texture="floor" texrepeat="{rng.integers(1, 8)} {rng.integers(1, 8)}"
 texuniform="true" reflectance="{rng.choice([0.0, 0.2])}"/>{materials}</asset>
<worldbody><light pos="{_numbers(rng.uniform(-2, 2, 2))} 3" dir="0 0 -1" diffuse="{_rgb(rng)}"/>
{static}{moving}</worldbody></mujoco>"""

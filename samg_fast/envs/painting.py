"""Repaints a compiled MuJoCo model for the colour settings, as if the model had been written with other colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from samg_fast.envs.settings import PLAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    import mujoco
    from numpy.typing import NDArray

    from samg_fast.envs.settings import Color, Colors

__all__ = ["SceneColors"]

# Material -> (whether its own colour is shifted rather than replaced, which entry of `Colors` it follows).
_MATERIALS: Final = {"self": (False, "self_rgb"), "MatViz": (True, "self_rgb"), "tablecube": (True, "skybox_rgb")}


class SceneColors:
    """Repaints a compiled MuJoCo model, and can restore its original colours.

    A renderer that already exists shows the change after a call of its `upload`. A copy has no model until it is given
    one: a copy of the model.

    Parameters
    ----------
    model : mujoco.MjModel
        The model; its texture and material arrays are written in place. In dm_control's models the textures ``grid``
        and ``skybox`` and the material ``self`` are repainted. In the Adroit models the texture ``groundplane`` is
        repainted, and the colours of the materials ``MatViz`` (the hand) and ``tablecube`` (the table, as there is no
        sky) are shifted by as much as the robot's and the sky's colours differ from dm_control's. Whatever a model does
        not have is skipped.

    Attributes
    ----------
    model : mujoco.MjModel
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        import mujoco

        self.model = model
        self._textures: dict[str, tuple[slice, NDArray[np.uint8]]] = {}
        for name in ("grid", "skybox", "groundplane"):
            index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_TEXTURE, name)
            if index >= 0:
                where = _texture_slice(model, index)
                self._textures[name] = (where, model.tex_data[where].copy())
        self._materials: dict[str, tuple[int, NDArray[np.float32]]] = {}
        for name in _MATERIALS:
            index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_MATERIAL, name)
            if index >= 0:
                self._materials[name] = (index, model.mat_rgba[index].copy())

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "model": None}

    def apply(self, colors: Colors) -> None:
        """Paint the model in these colours."""
        painted = _render_textures(self.model, colors, tuple(self._textures))
        for name, (where, _) in self._textures.items():
            self.model.tex_data[where] = painted[name]
        for name, (index, rgba) in self._materials.items():
            shifted, color = _MATERIALS[name]
            painted_rgb = np.asarray(getattr(colors, color))
            if shifted:
                painted_rgb = np.clip(rgba[:3] + painted_rgb - getattr(PLAIN, color), 0.0, 1.0)
            self.model.mat_rgba[index, :3] = painted_rgb

    def restore(self) -> None:
        """Restore the model's original colours, bit for bit."""
        for where, data in self._textures.values():
            self.model.tex_data[where] = data
        for index, rgba in self._materials.values():
            self.model.mat_rgba[index] = rgba


def _texture_slice(model: mujoco.MjModel, index: int) -> slice:
    """Return the slice of ``model.tex_data`` that holds a texture's bytes."""
    start = int(model.tex_adr[index])
    return slice(start, start + int(model.tex_width[index] * model.tex_height[index] * model.tex_nchannel[index]))


def _render_textures(model: mujoco.MjModel, colors: Colors, names: Sequence[str]) -> dict[str, NDArray[np.uint8]]:
    """Let MuJoCo's compiler generate the named textures in other colours, at the sizes they have in the model."""
    import mujoco

    # Attributes as in dm_control's common/materials.xml and common/skybox.xml, and in adroit_assets.xml.
    attributes = {
        "grid": f'type="2d" builtin="checker" rgb1="{_xml(colors.grid_rgb1)}" rgb2="{_xml(colors.grid_rgb2)}" '
        'mark="edge" markrgb=".2 .3 .4"',
        "skybox": f'type="skybox" builtin="gradient" rgb1="{_xml(colors.skybox_rgb)}" rgb2="0 0 0" '
        'mark="random" markrgb="1 1 1"',
        "groundplane": f'type="2d" builtin="checker" rgb1="{_xml(colors.grid_rgb2)}" rgb2="{_xml(colors.grid_rgb1)}"',
    }
    if not names:
        return {}
    sizes = {name: int(model.tex_width[mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_TEXTURE, name)]) for name in names}
    textures = "".join(
        f'<texture name="{name}" {attributes[name]} width="{width}" height="{width}"/>' for name, width in sizes.items()
    )
    compiled = mujoco.MjModel.from_xml_string(f"<mujoco><asset>{textures}</asset></mujoco>")
    painted: dict[str, NDArray[np.uint8]] = {}
    for name in names:
        index = mujoco.mj_name2id(compiled, mujoco.mjtObj.mjOBJ_TEXTURE, name)
        painted[name] = compiled.tex_data[_texture_slice(compiled, index)]
    return painted


def _xml(color: Color) -> str:
    """Format a colour as an MJCF attribute."""
    return " ".join(f"{channel:.9g}" for channel in color)

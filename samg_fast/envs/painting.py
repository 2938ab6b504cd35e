"""Repainting a compiled MuJoCo model, as if other colours stood in it: what the colour settings do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from samg_fast.envs.settings import PLAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    import mujoco
    from numpy.typing import NDArray

    from samg_fast.envs.settings import Color, Colors

__all__ = ["SceneColors"]

# Of each repainted material: whether it has a colour of its own that is shifted, and by which of the colours.
_MATERIALS: Final = {"self": (False, "self_rgb"), "MatViz": (True, "self_rgb"), "tablecube": (True, "skybox_rgb")}


class SceneColors:
    """Repaints a compiled MuJoCo model, and can put everything back.

    A renderer that was made before `apply` or `restore` shows the change after its `upload`.

    Parameters
    ----------
    model : mujoco.MjModel
        The model; its texture and material arrays are written in place. dm_control's textures ``grid`` and ``skybox``
        and its material ``self`` are repainted; of the Adroit hands the texture ``groundplane``, and the materials
        ``MatViz`` (the hand) and ``tablecube`` (the table, in place of a sky), which have colours of their own, by as
        much as robot and sky depart from dm_control's. A model without one of them keeps its own looks there.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        import mujoco

        self._model = model
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

    def apply(self, colors: Colors) -> None:
        """Paint the model in these colours."""
        painted = _paint(self._model, colors, tuple(self._textures))
        for name, (where, _) in self._textures.items():
            self._model.tex_data[where] = painted[name]
        for name, (index, rgba) in self._materials.items():
            own, color = _MATERIALS[name]
            painted_rgb = np.asarray(getattr(colors, color))
            if own:
                painted_rgb = np.clip(rgba[:3] + painted_rgb - getattr(PLAIN, color), 0.0, 1.0)
            self._model.mat_rgba[index, :3] = painted_rgb

    def restore(self) -> None:
        """Put the model's own colours back, bit for bit."""
        for where, data in self._textures.values():
            self._model.tex_data[where] = data
        for index, rgba in self._materials.values():
            self._model.mat_rgba[index] = rgba


def _texture_slice(model: mujoco.MjModel, index: int) -> slice:
    """Where a texture's bytes lie in ``model.tex_data``."""
    start = int(model.tex_adr[index])
    return slice(start, start + int(model.tex_width[index] * model.tex_height[index] * model.tex_nchannel[index]))


def _paint(model: mujoco.MjModel, colors: Colors, names: Sequence[str]) -> dict[str, NDArray[np.uint8]]:
    """Have MuJoCo's compiler generate dm_control's textures in other colours, at the sizes the model has them in."""
    import mujoco

    # The attributes are those of dm_control's common/materials.xml and common/skybox.xml, and of adroit_assets.xml.
    looks = {
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
        f'<texture name="{name}" {looks[name]} width="{width}" height="{width}"/>' for name, width in sizes.items()
    )
    made = mujoco.MjModel.from_xml_string(f"<mujoco><asset>{textures}</asset></mujoco>")
    painted: dict[str, NDArray[np.uint8]] = {}
    for name in names:
        index = mujoco.mj_name2id(made, mujoco.mjtObj.mjOBJ_TEXTURE, name)
        painted[name] = made.tex_data[_texture_slice(made, index)]
    return painted


def _xml(color: Color) -> str:
    """Write a colour as an MJCF attribute."""
    return " ".join(f"{channel:.9g}" for channel in color)

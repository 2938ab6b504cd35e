"""What a mask file means: which of its pixels are the target.

Plain masks are black and white. Files from drawing and labelling programs are not: `read_mask` reads those whose
meaning is clear and says what it did, and refuses the others with a list of what they hold.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from samg_fast.checks import Frame, Mask
from samg_fast.errors import FileError
from samg_fast.media.images import EIGHT_BIT_MODES, open_image, to_rgb

__all__ = ["read_mask", "read_masked_image"]

_log = logging.getLogger("samg_fast")

_LABEL_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
_LOSSY_FORMATS = frozenset({"JPEG", "MPO", "AVIF"})

_MAX_LABELS = 64  # more values than that are shades
_MAX_CLASS = 20  # alone beside white, a value up to this may be a label: the largest of PASCAL VOC
_MAX_VOIDED = 100  # beside 0 and white, values up to this are labels, and larger ones may be shades
_VOC_VOID = 0xE0E0C0  # its colour for "not judged"

_MAX_FEW = 8  # more colours than that may be the soft edges of a shape
_CODE = (1 << 16, 1 << 8, 1)  # makes one number of a colour
_HUE_NOISE = 40  # lossy formats move colours by less

Values = NDArray[np.int64]


class _UnclearError(Exception):
    """What a file holds, in words, of which it is not clear what is the target."""


def read_mask(path: str | os.PathLike[str], *, label: int | None = None) -> Mask:
    """Read a mask file.

    - Where transparency varies, it is the mask.
    - Of two shades or colours, also in indexed colours, the brighter is the mask, at the soft edges of a lossy or
      smoothed file from half of its brightness.
    - Of labels (several grey values, indexed colours, or colours on black), all but 0 are the mask. 255, or 65535 in
      files of 16 bits, means "not judged" beside labels below half of it.

    Where the file is not black and white, a warning of the logger "samg_fast" says what was done. A black image is an
    empty mask.

    Parameters
    ----------
    path : str or os.PathLike
        An image with 8 bits per channel, or labels of 16 bits, in any format Pillow reads.
    label : int, optional
        The label that is the mask, of a grey file or one in indexed colours.

    Returns
    -------
    (H, W) bool

    Raises
    ------
    FileError
        The file is missing, is no image, is cut short, holds fractions, does not hold the label, or it is not clear
        what its target is.
    """
    image = open_image(path, EIGHT_BIT_MODES | _LABEL_MODES)
    try:
        if label is not None:
            return _one_label(image, label)
        mask, done = _meaning(image)
    except _UnclearError as error:
        raise FileError(f"cannot use {path} as a mask: {error}") from None
    if done:
        _log.warning("%s: %s", path, done)
    return mask


def read_masked_image(path: str | os.PathLike[str]) -> Frame:
    """Read an image that is black but for the target, as SAM-G's own code takes it.

    Parameters
    ----------
    path : str or os.PathLike
        As for `read_image`. Where transparency varies, what is transparent is read as black.

    Returns
    -------
    (H, W, 3) uint8

    Raises
    ------
    FileError
        As for `read_image`.
    """
    image = open_image(path)
    frame = to_rgb(image, path)
    alpha = _alpha(image)
    if alpha is None:
        return frame
    _log.warning("%s: what is transparent is read as black", path)
    return np.where(alpha[..., None], frame, np.uint8(0))


def _meaning(image: Image.Image) -> tuple[Mask, str]:
    """Return the mask, and what was done to get it where that is not plain."""
    alpha = _alpha(image)
    if alpha is not None:
        return alpha, "its transparency is the mask, whatever its colours"
    if image.mode == "P":
        return _of_palette(image)
    if image.mode in _LABEL_MODES or image.mode in ("1", "L", "LA"):
        return _of_shades(_labels(image), image.format in _LOSSY_FORMATS)
    colours = np.asarray(image.convert("RGB"), dtype=np.uint8)
    if (colours == colours[..., :1]).all():
        return _of_shades(colours[..., 0].astype(np.int64), image.format in _LOSSY_FORMATS)
    return _of_colours(colours, image.format in _LOSSY_FORMATS)


def _alpha(image: Image.Image) -> Mask | None:
    """Return where an image is opaque rather than transparent; None where it is the same everywhere."""
    if image.mode not in ("LA", "PA", "RGBA") and "transparency" not in image.info:
        return None
    alpha = np.asarray(image.convert("RGBA").getchannel("A"), dtype=np.int64)
    low, high = int(alpha.min()), int(alpha.max())
    return None if low == high else alpha * 2 > low + high


def _labels(image: Image.Image) -> Values:
    """Return the numbers in an image: indices of colours, or grey values."""
    if image.mode in ("1", "LA"):
        image = image.convert("L")
    elif image.mode == "PA":
        image = image.convert("P")
    return np.asarray(image).astype(np.int64)


def _one_label(image: Image.Image, label: int) -> Mask:
    if image.mode not in _LABEL_MODES | {"1", "L", "LA", "P", "PA"}:
        raise _UnclearError(f"label {label} was asked for, but it holds colours ({image.mode}), not labels")
    labels = _labels(image)
    mask: Mask = labels == label
    if not mask.any():
        raise _UnclearError(f"label {label} is not in it; it holds {_listed(labels)}")
    return mask


def _of_palette(image: Image.Image) -> tuple[Mask, str]:
    """Read indexed colours: drawn in shades of grey, in two colours, or as labels."""
    labels = _labels(image)
    used = _values(labels)
    flat = image.getpalette("RGB") or []
    palette = np.zeros((256, 3), np.int64)
    palette[: len(flat) // 3] = np.reshape(flat, (-1, 3))
    colours = palette[used]
    codes = colours @ _CODE
    if len(np.unique(codes)) == len(used):
        if (colours == colours[:, :1]).all():
            return _of_shades(palette[:, 0][labels], lossy=False)
        if len(used) == 2 and not (used[1] == 255 and 0 < used[0] <= _MAX_CLASS):
            return _brighter((palette @ _CODE)[labels])
        # Shapes with soft edges have colours in any order, so that 0 says nothing; a GIF is drawn, not labelled.
        if len(used) > _MAX_FEW or image.format == "GIF":
            drawn = palette.astype(np.uint8)[labels]
            if len(used) > _MAX_LABELS or _is_shape(drawn, lossy=False):
                return _of_colours(drawn, lossy=False)
    return _of_labels(labels, 255)


def _of_shades(shades: Values, lossy: bool) -> tuple[Mask, str]:
    """Read grey values: two shades, with or without soft edges between them, or labels."""
    values = _values(shades)
    top = int(values[-1])
    white = 255 if top <= 255 else 65535
    if len(values) == 1:
        done = "" if top in (0, white) else f"all of it is {top}, so all of it is the mask"
        return shades > 0, done
    if len(values) == 2:
        low = int(values[0])
        labels_alone = low > 0 and (top <= _MAX_CLASS or (top == white and low <= _MAX_CLASS))
        if labels_alone and not lossy:
            raise _UnclearError(_which(_listed(shades)))
        done = "" if (low, top) == (0, white) else f"of its values {low} and {top}, {top} is the mask"
        return shades == top, done
    void = top == white and int(values[-2]) <= _MAX_VOIDED and values[0] == 0
    if lossy or (not void and top * 2 > white):
        if _two_toned(shades, top, lossy):
            return shades * 2 > top, f"it has {len(values)} shades: those brighter than half of {top} are the mask"
        if lossy or top == white or len(values) > _MAX_LABELS:
            raise _UnclearError(
                _which(_listed(shades) if len(values) <= _MAX_LABELS else f"{len(values)} shades of grey")
            )
    return _of_labels(shades, white)


def _of_labels(labels: Values, white: int) -> tuple[Mask, str]:
    """Take every label but 0 and the one for "not judged"."""
    values = _values(labels).tolist()
    void = values[-1] == white and len(values) > 2
    chosen = [value for value in values if value and not (void and value == white)]
    if len(values) == 1:
        return labels > 0, "" if not chosen else f"all of it is label {chosen[0]}, so all of it is the mask"
    if values[0] != 0 or len(values) > _MAX_LABELS:
        raise _UnclearError(_which(_listed(labels)))
    mask: Mask = np.isin(labels, chosen)
    names = f"label{'s' * (len(chosen) > 1)} {', '.join(map(str, chosen))}"
    nothing = f"0 is background{f' and {white} is not judged' if void else ''}"
    one = "; to take one label alone, name it" if len(chosen) > 1 else ""
    return mask, f"{names} together are the mask, {nothing}{one}" if one else f"{names} is the mask, {nothing}"


def _of_colours(colours: Frame, lossy: bool) -> tuple[Mask, str]:
    """Read colours: two of them, with or without soft edges between them, or several on black."""
    codes = colours.astype(np.int64) @ _CODE
    values = _values(codes)
    if len(values) == 2:
        return _brighter(codes)
    if _VOC_VOID not in values and _is_shape(colours, lossy):
        lights = _luma(codes)
        top = int(lights.max())
        return lights * 2 > top, f"it has {len(values)} colours: those brighter than half of {top} are the mask"
    if lossy or len(values) > _MAX_LABELS:
        raise _UnclearError(
            f"it is a picture in {len(values)} colours; give one that is white on the target and black elsewhere, "
            "or add --masked-picture if it shows the picture, black but for the target"
        )
    if values[0] != 0:
        raise _UnclearError(f"it holds {_listed(codes, _hex)}, and no black that would be the background")
    void = _VOC_VOID in values
    mask: Mask = (codes > 0) & ~(void & (codes == _VOC_VOID))
    judged = f", and {_hex(_VOC_VOID)} is not judged" if void else ""
    return mask, f"all its {len(values) - 1 - void} colours but black are the mask{judged}"


def _brighter(codes: Values) -> tuple[Mask, str]:
    """Take the brighter of two colours."""
    first, second = _values(codes).tolist()
    lights = _luma(np.array([first, second]))
    if lights[0] == lights[1]:
        raise _UnclearError(
            f"it holds {_listed(codes, _hex)}, which are equally bright; make the target white, the rest black"
        )
    chosen = first if lights[0] > lights[1] else second
    mask: Mask = codes == chosen
    return mask, f"of its colours {_hex(first)} and {_hex(second)}, the brighter, {_hex(chosen)}, is the mask"


def _two_toned(shades: Values, top: int, lossy: bool) -> bool:
    """Return whether what is neither dark nor bright is but the edge between the two."""
    bright_level = int(np.median(shades[shades * 2 > top]))  # lossy formats overshoot it at edges
    dark, bright = shades * 4 <= bright_level, shades * 20 >= bright_level * 17
    middle = ~(dark | bright)
    darks, brights, middles = (int(np.count_nonzero(each)) for each in (dark, bright, middle))
    if not middles:
        return True
    at_edge = int(np.count_nonzero(middle & _grown(dark) & _grown(bright)))
    if middles <= max(brights, darks // 2) and at_edge >= 0.8 * middles:
        return True
    # A wide, smooth edge has many shades. In photographs, little of what is not dark is bright.
    return (lossy or len(_values(shades)) > _MAX_LABELS) and brights >= middles


def _is_shape(colours: Frame, lossy: bool) -> bool:
    """Return whether a picture is a shape in one colour on another: two-toned, with only colours between the two."""
    lights = _luma(colours.astype(np.int64) @ _CODE)
    top = int(lights.max())
    if not _two_toned(lights, top, lossy):
        return False
    dark, lit = lights * 4 <= top, lights * 2 > top
    start = np.median(colours[dark], axis=0) if dark.any() else np.zeros(3)
    way = np.median(colours[lit], axis=0) - start
    between = colours[~dark] - start
    aside = between - np.outer(between @ way / max(float(way @ way), 1.0), way)
    return bool(np.mean(np.abs(aside).max(axis=1) > _HUE_NOISE) < 0.1)


def _grown(mask: Mask) -> Mask:
    """Return a mask with two more pixels on every side."""
    grown = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).filter(ImageFilter.MaxFilter(5))
    return np.asarray(grown) > 0


def _values(array: Values) -> Values:
    """Return the values there are, rising."""
    if array.min() < 0 or array.max() >= 1 << 24:
        return np.unique(array)
    return np.flatnonzero(np.bincount(array.ravel()))  # faster by ten times, for a photograph's size


def _luma(codes: Values) -> Values:
    """Return the brightness of colours, as Pillow weighs them."""
    luma: Values = ((codes >> 16) * 299 + ((codes >> 8) & 255) * 587 + (codes & 255) * 114) // 1000
    return luma


def _hex(code: int) -> str:
    return f"#{code:06x}"


def _which(held: str) -> str:
    return (
        f"it holds {held}, and it is not clear which is the target; name the label that is (--label N), "
        "or give a file that is white on the target and black elsewhere"
    )


def _listed(values: Values, name: Any = str) -> str:
    """List what a file holds and how much of it, the most frequent first."""
    found, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    parts = [f"{name(int(found[i]))} ({100 * counts[i] / values.size:.1f} %)" for i in order[:8]]
    more = len(found) - len(parts)
    return ", ".join(parts) + (f" and {more} more" if more else "")

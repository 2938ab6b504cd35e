"""Fitting: from a reference and some frames to a bundle of one small network, for that target alone.

It needs PyTorch, the extra ``fit``; what it writes needs none.
"""

from samg_fast.errors import MissingExtraError

try:
    from samg_fast.fitting.run import FitReport, fit
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] == "samg_fast":
        raise
    raise MissingExtraError("fitting", "fit") from error

__all__ = ["FitReport", "fit"]

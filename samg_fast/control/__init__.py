"""Masked control in real time: perception on a thread of its own beside a loop at a fixed rate."""

from samg_fast.control.controller import Controller, Tick
from samg_fast.control.perception import FrameCounts, Observation
from samg_fast.control.rate import Clock
from samg_fast.control.report import Report
from samg_fast.errors import PerceptionError, StaleError, StoppedError

__all__ = ["Clock", "Controller", "FrameCounts", "Observation", "PerceptionError", "Report", "StaleError"]
__all__ += ["StoppedError", "Tick"]

"""References by click in a browser: frames, the session that is kept, and the page's server."""

from samg_fast.annotate.frames import FrameList, from_source, from_task
from samg_fast.annotate.server import PageServer
from samg_fast.annotate.session import Session

__all__ = ["FrameList", "PageServer", "Session", "from_source", "from_task"]

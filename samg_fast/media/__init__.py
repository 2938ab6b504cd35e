"""Images, masks and videos on the disk: read as the arrays the segmenter takes, written whole or not at all."""

from samg_fast.media.camera import Camera
from samg_fast.media.frames import Frames, NamedFrame, frames_in
from samg_fast.media.images import IMAGE_SUFFIXES, read_image, write_image
from samg_fast.media.masks import read_mask, read_masked_image
from samg_fast.media.video import VIDEO_SUFFIXES, TimedFrame, VideoReader
from samg_fast.media.writer import VideoWriter

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Camera",
    "Frames",
    "NamedFrame",
    "TimedFrame",
    "VideoReader",
    "VideoWriter",
    "frames_in",
    "read_image",
    "read_mask",
    "read_masked_image",
    "write_image",
]

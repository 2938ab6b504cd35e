"""Images, masks and videos on the disk: read as the arrays the segmenter takes, written whole or not at all."""

from samg_fast.media.images import IMAGE_SUFFIXES, Frames, frames_in, read_image, read_mask, write_image
from samg_fast.media.video import VideoReader, VideoWriter

__all__ = [
    "IMAGE_SUFFIXES",
    "Frames",
    "VideoReader",
    "VideoWriter",
    "frames_in",
    "read_image",
    "read_mask",
    "write_image",
]

#!/usr/bin/env bash
# PyAV and the transparency of a VP9 video
#
# Expected: a WebM that was written with libvpx-vp9 and yuva420p is read back with its transparency: the stream says
#           alpha_mode=1, and frames convert to RGBA.
# Seen:     FFmpeg's own vp9 decoder, which av.open takes, gives yuv420p: every pixel of the RGBA is opaque, and nothing
#           says that something was left out. The decoder libvpx-vp9, chosen by name, gives yuva420p.
# Instead:  av.CodecContext.create("libvpx-vp9", "r") and the packets of container.demux.
# Versions: Python 3.11, av 18.1.0
# Output:   alpha_mode 1
#           vp9 yuv420p opaque
#           libvpx-vp9 yuva420p half transparent
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6
cat >read.py <<'PYTHON'
import av
import numpy as np

picture = np.full((64, 64, 4), 200, np.uint8)
picture[..., 3] = np.where(np.arange(64) < 32, 255, 0)
with av.open("a.webm", "w") as container:
    stream = container.add_stream("libvpx-vp9", rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 64, "yuva420p"
    for _ in range(3):
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgba")))
    container.mux(stream.encode(None))


def said(name, frame):
    alpha = frame.to_ndarray(format="rgba")[..., 3]
    print(name, frame.format.name, "opaque" if alpha.min() == 255 else "half transparent" if alpha[:, 40:].max() < 50 else "?")


with av.open("a.webm") as container:
    print("alpha_mode", container.streams.video[0].metadata["alpha_mode"])
    said("vp9", next(container.decode(video=0)))
with av.open("a.webm") as container:
    decoder = av.CodecContext.create("libvpx-vp9", "r")
    packets = [packet for packet in container.demux(video=0) if packet.size]
    said("libvpx-vp9", decoder.decode(packets[0])[0])
PYTHON
env/bin/python read.py | tee seen
diff seen - <<'SEEN'
alpha_mode 1
vp9 yuv420p opaque
libvpx-vp9 yuva420p half transparent
SEEN

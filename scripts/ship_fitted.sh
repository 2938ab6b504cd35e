#!/bin/sh
# Fit the bundles that ship, one for each of the paper's tasks, from MuJoCo's ground truth, and put them into the package:
#     scripts/ship_fitted.sh DMCGB [WORK]
# DMCGB is a folder with the benchmark's video_easy and video_hard; the clips that measure are not opened. What was begun in
# WORK (fits by default) goes on there.
set -eu
clips=$1
work=${2:-fits}
photos=$work/photos
mkdir -p "$work"
python3 - "$photos" <<'PYTHON'
import sys
from pathlib import Path

from samg_fast.distill.photos import fetch_photos

fetch_photos(Path(sys.argv[1]))
PYTHON
for task in walker_walk walker_stand cartpole_swingup ball_in_cup_catch finger_spin cheetah_run hopper_stand quadruped_walk \
    adroit_door adroit_hammer adroit_pen; do
    [ -e "$work/$task/manifest.json" ] || samg-fast fit --env "$task" --truth --count 2000 --steps 12000 \
        --backgrounds "$clips" --backgrounds "$photos" --without 'video_hard/video4?,video_easy/video8,video_easy/video9' -o "$work/$task"
    into=samg_fast/bundle/$task
    rm -rf "$into"
    mkdir "$into"
    cp "$work/$task/manifest.json" "$work/$task"/network-*.onnx "$into"
done

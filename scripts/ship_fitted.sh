#!/bin/sh
# Fit the bundles that ship, one for each of the paper's tasks, from MuJoCo's ground truth, and put them into the package:
#     scripts/ship_fitted.sh DMCGB [WORK [TASK]]
# DMCGB is a folder with the benchmark's video_easy and video_hard; the clips that measure are not opened. What was begun in
# WORK (fits by default) goes on there. Without TASK all tasks are fitted, one on each core; two of them are one scene.
set -eu
clips=$1
work=${2:-fits}
photos=$work/photos
if [ $# -lt 3 ]; then
    mkdir -p "$work"
    python3 - "$photos" <<'PYTHON'
import sys
from pathlib import Path

from samg_fast.distill.photos import fetch_photos

fetch_photos(Path(sys.argv[1]))
PYTHON
    printf '%s\n' ball_in_cup_catch hopper_stand cartpole_swingup quadruped_walk cheetah_run finger_spin walker_walk \
        adroit_pen adroit_hammer adroit_door | xargs -P "$(nproc)" -n 1 sh "$0" "$clips" "$work"
    exit
fi
task=$3
[ -e "$work/$task/manifest.json" ] || OMP_NUM_THREADS=1 samg-fast fit --env "$task" --truth --count 2000 --steps 6000 \
    --backgrounds "$clips" --backgrounds "$photos" --without 'video_hard/video4?,video_easy/video8,video_easy/video9' \
    -o "$work/$task"
ship() {
    into=samg_fast/bundle/$1
    rm -rf "$into"
    mkdir "$into"
    cp "$work/$task"/network-*.onnx "$into"
    sed "s/\"name\": \"$task\"/\"name\": \"$1\"/" "$work/$task/manifest.json" > "$into/manifest.json"
}
ship "$task"
if [ "$task" = walker_walk ]; then
    ship walker_stand # the same scene
fi

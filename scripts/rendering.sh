#!/usr/bin/env bash
# Usage: scripts/rendering.sh PYTHON
# Make off-screen OpenGL work for the tests that render. Where that cannot be done, say what is missing in one line and go
# on: those tests then skip, and name the same packages.
set -u
python=$1
packages=(libegl1 libgl1 libegl-mesa0 libgl1-mesa-dri)

renders() {
    "$python" - >/dev/null 2>&1 <<'PROBE'
from samg_fast.envs.rendering import ensure_gl
ensure_gl()
import mujoco
context = mujoco.GLContext(8, 8)
context.make_current()
context.free()
PROBE
}

renders && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing ${packages[*]} for off-screen rendering"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${packages[@]}"; } \
        >/dev/null 2>&1
    renders && exit 0
fi
echo "off-screen rendering does not work here, tests that render will skip; on Debian: apt-get install ${packages[*]}" >&2

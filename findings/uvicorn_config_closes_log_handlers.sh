#!/usr/bin/env bash
# uvicorn and the logging of the program around it
#
# Expected: making a uvicorn.Config, without running a server, leaves the program's own log handlers alone: uvicorn's
#           default log_config names loggers of its own and has disable_existing_loggers false.
# Seen:     the constructor applies its log_config at once, and logging.config.dictConfig first shuts down every handler
#           that exists. A FileHandler that was opened with mode="w" then drops all later records without a word; a
#           MemoryHandler loses its target.
# Instead:  uvicorn.Config(app, log_config=None).
# Versions: Python 3.11, uvicorn 0.54.0
# Output:   default: before
#           log_config=None: before after
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check uvicorn==0.54.0
cat >program.py <<'PYTHON'
import logging
import sys

import uvicorn

handler = logging.FileHandler("program.log", mode="w")
logger = logging.getLogger("program")
logger.addHandler(handler)
logger.warning("before")
uvicorn.Config("nothing:app", **({"log_config": None} if sys.argv[1] == "none" else {}))
logger.warning("after")
print(*open("program.log").read().split())
PYTHON
default=$(env/bin/python program.py default)
none=$(env/bin/python program.py none)
echo "default: $default"
echo "log_config=None: $none"
[ "$default" = "before" ] && [ "$none" = "before after" ]

#!/usr/bin/env bash
# Make Chromium available for the tests of the page of samg-fast annotate. Where that cannot be done, say what is missing in
# one line and go on: those tests then skip.
set -u

there() { command -v chromium >/dev/null || command -v chromium-browser >/dev/null; }

there && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing chromium for the tests of the annotation page"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends chromium; } \
        >/dev/null 2>&1
    there && exit 0
fi
echo "no Chromium: the tests of the annotation page will skip; on Debian: apt-get install chromium" >&2

#!/usr/bin/env bash
# Make doctest, the framework of the C++ tests, available. Where that cannot be done, say what is missing in one line and go
# on: the build then leaves those tests out, and says so too.
set -u
header=doctest/doctest.h

there() { echo "#include <$header>" | ${CXX:-c++} -x c++ -fsyntax-only - 2>/dev/null; }

there && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing doctest-dev for the C++ tests"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends doctest-dev; } \
        >/dev/null 2>&1
    there && exit 0
fi
echo "no $header: the C++ tests are left out; on Debian: apt-get install doctest-dev" >&2

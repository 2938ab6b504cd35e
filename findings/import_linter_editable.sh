#!/usr/bin/env bash
# import-linter (grimp) and an editable install by scikit-build-core
#
# Expected: grimp, which import-linter reads imports with, finds the modules of the package shop whichever way shop is
#           installed.
# Seen:     where wheel.packages of scikit-build-core takes a subpackage from another folder of the checkout
#           ("shop/tools" = "tools"), an editable install makes the checkout itself a search location of shop. grimp then
#           walks the whole checkout as the package: the graph has shop.shop.till, shop.tests.test_till, and names cut
#           off at the front, such as ject (of project). No warning is given; a contract that names every module, or
#           asks for no circle, is checked on these.
# Instead:  let grimp see the checkout alone, by python -S with the checkout and site-packages on PYTHONPATH.
# Versions: Python 3.11, grimp 3.20 (import-linter 2.17), scikit-build-core 1.1.0
# Output:   editable: ject ject.tests shop shop.coins shop.shop shop.shop.coins shop.shop.till shop.tests.test_till
#                     shop.till shop.tools
#           checkout: shop shop.coins shop.till
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check grimp==3.20 scikit-build-core==1.1.0 cmake ninja
mkdir -p project/shop project/tools project/tests
cd project
cat >pyproject.toml <<'TOML'
[build-system]
requires = ["scikit-build-core"]
build-backend = "scikit_build_core.build"
[project]
name = "shop"
version = "1"
[tool.scikit-build]
wheel.packages = { shop = "shop", "shop/tools" = "tools" }
TOML
printf 'cmake_minimum_required(VERSION 3.25)\nproject(shop LANGUAGES NONE)\n' >CMakeLists.txt
touch shop/__init__.py tools/__init__.py tests/test_till.py
echo 'from shop import coins' >shop/till.py
echo >shop/coins.py
../env/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable .

modules='import grimp; print(*sorted(grimp.build_graph("shop", cache_dir=None).modules))'
editable=$(../env/bin/python -c "$modules")
site=$(../env/bin/python -c 'import site; print(site.getsitepackages()[0])')
checkout=$(PYTHONPATH="$PWD:$site" ../env/bin/python -S -c "$modules")
echo "editable: $editable"
echo "checkout: $checkout"
[ "$checkout" = "shop shop.coins shop.till" ]
case $editable in *shop.tests.test_till*) ;; *) echo "the surprise is gone" >&2; exit 1 ;; esac

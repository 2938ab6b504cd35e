#!/usr/bin/env bash
# Everything that only a machine with an NVIDIA GPU can say, in one run of at most twelve minutes, without a network.
# Usage: scripts/on_gpu.sh [OPTION ...]
#   --wheels DIR      wheels of what the machine's Python lacks; docs/gpu.md says which
#   --out DIR         where logs, XML and JSON go, each as soon as it is there         [out/on_gpu]
#   --work DIR        where the environment and the build go; a later run uses them    [build/on_gpu]
#   --python PYTHON   the machine's Python, whose packages are borrowed, PyTorch too   [python3]
#   --limit SECONDS   of the whole run                                                 [720]
#   --commit TEXT     which commit this is, where there is no git to ask
#   --only PART,...   these parts alone
#   --rehearse        on a machine without a GPU, as far as fakes, the host executor and ahead-of-time builds go;
#                     one part fails and one hangs on purpose, so that it is seen that the others go on
#   --list            print name, seconds and command of each part, and run nothing
# Parts come in the order of what matters most. Each has its own time limit and survives the failure of another, but the
# first three, which make the environment that all need. Settings of the GPU are left alone. Exit status 1 if a part did
# not end as it should.
set -uo pipefail

wheels='' out='' work='' python=python3 limit=720 commit='' only='' rehearse=false list=false
wrong() {
    echo "$0: $1" >&2
    exit 2
}
while (($#)); do
    case $1 in
        --rehearse | --list) declare "${1#--}=true" ;;
        --wheels | --out | --work | --python | --limit | --commit | --only)
            (($# > 1)) || wrong "$1 needs a value"
            declare "${1#--}=$2"
            shift
            ;;
        *) wrong "unknown option $1; the first lines of this file say what there is" ;;
    esac
    shift
done
[[ -z $wheels || -d $wheels ]] || wrong "there is no folder $wheels"
[[ $limit =~ ^[1-9][0-9]*$ ]] || wrong "limit must be a whole number of seconds above 0, it is '$limit'"
python=$(command -v "$python") || wrong "there is no such Python; name the machine's with --python"
python=$(realpath --no-symlinks "$python") # a virtual environment's is a link, and is known by the link's place
root=$(realpath "$(dirname "$0")/..")
wheels=${wheels:+$(realpath "$wheels")}
out=$(realpath --canonicalize-missing "${out:-$root/out/on_gpu}")
work=$(realpath --canonicalize-missing "${work:-$root/build/on_gpu}")
bin=$work/venv/bin
cd "$root" || exit 2

CMAKE_BUILD_PARALLEL_LEVEL=$(nproc)
for folder in /usr/local/cuda/bin /usr/local/cuda/compute-sanitizer; do
    [[ ! -d $folder ]] || PATH=$PATH:$folder
done
export PATH CMAKE_BUILD_PARALLEL_LEVEL PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 HF_HUB_OFFLINE=1 XDG_CACHE_HOME=$work/cache
unset PYTHONPATH VIRTUAL_ENV

grace=20 # seconds between SIGINT and SIGKILL; pytest-xdist gives its processes ten of them
running=
trap '[[ -z $running ]] || kill -INT "$running"' EXIT
trap 'exit 130' INT TERM HUP

# part NAME SECONDS COMMAND ...
# Run a command, for so long at most, and record how it went. It should end with the exit status `expected`, or 0.
part() {
    local name=$1 seconds=$2 began=$SECONDS left=$((limit - SECONDS - grace)) status
    shift 2
    selected "$name" || return 0
    if $list; then
        printf '%s\t%s\t%s\n' "$name" "$seconds" "${*@Q}"
    elif ((left < 5)); then
        record "$name" 0 0 125 "${expected:-0}" "${*@Q}" "the time is up"
    else
        rm -f "$out/$name.xml"
        { echo "+ ${*@Q}" && state_of_gpu; } >"$out/$name.log"
        # On SIGINT pytest still writes its report; env, because a job in the background would ignore it.
        env --default-signal=INT timeout --signal=INT --kill-after=$grace $((seconds < left ? seconds : left)) "$@" \
            >>"$out/$name.log" 2>&1 </dev/null &
        running=$!
        wait $running 2>/dev/null # it would say of one that was killed that it was
        status=$?
        running=
        record "$name" $((SECONDS - began)) "$seconds" $status "${expected:-0}" "${*@Q}"
    fi
}

# leave_out NAME REASON
leave_out() {
    ! selected "$1" || $list || record "$1" 0 0 0 0 "" "$2"
}

selected() {
    [[ -z $only || ,$only, == *,$1,* ]]
}

# record NAME SECONDS LIMIT STATUS EXPECTED COMMAND [REASON]
# Add a part to summary.json and print a line; all.tar.gz is everything so far, for where only few files can be fetched.
record() {
    "$python" scripts/on_gpu_summary.py "$out" "$bin/python" "$commit" $rehearse "$@" || ended_well=false
    tar -C "$out" --exclude=all.tar.gz -czf "$work/all.tar.gz" . && mv "$work/all.tar.gz" "$out/all.tar.gz"
}

state_of_gpu() {
    command -v nvidia-smi >/dev/null || return 0
    timeout 10 nvidia-smi --format=csv \
        --query-gpu=name,clocks.sm,clocks.mem,temperature.gpu,power.draw,utilization.gpu,memory.used 2>&1
}

# tests NAME SECONDS ARGUMENT ...
# A part that is a run of pytest, in a process of pytest-xdist: where a test crashes it, or takes half of the part's time, the
# next process goes on with the next test. There is one, as some tests measure the GPU's memory, unless arguments say otherwise.
tests() {
    local name=$1 seconds=$2
    shift 2
    part "$name" "$seconds" "$bin/python" -m pytest -v -p no:randomly -p no:cacheprovider --junitxml="$out/$name.xml" -n 1 \
        --timeout=$((seconds / 2)) --timeout-method=thread -o timeout_func_only=true -o faulthandler_timeout=30 "$@"
}

# library NAME REQUIREMENT
# A part that installs what only some tests and benchmarks need, where its wheel is in the folder.
library() {
    if $list || compgen -G "$wheels/${1//-/_}*.whl" >/dev/null; then
        part "$1" 60 "${pip[@]}" "$2"
    else
        leave_out "$1" "no wheel of it is in the folder of wheels"
    fi
}

# An environment whose packages come first, and the machine's own after them. Those of a virtual environment count too,
# which --system-site-packages would pass over; their .pth files do not, so that an editable package of theirs is not seen.
environment='
import pathlib, sys, venv
venv.create(sys.argv[1], symlinks=True)
(site,) = pathlib.Path(sys.argv[1]).glob("lib/python*/site-packages")
borrowed = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
(site / "borrowed.pth").write_text("".join(f"{path}\n" for path in borrowed))
'
pip=("$python" -m pip --python "$bin/python" install --no-index ${wheels:+--find-links "$wheels"})

# prepare SECONDS DEFINITION ...
# The environment: everything is built in so many seconds at most, by CMake with these definitions.
prepare() {
    local seconds=$1
    shift
    part environment 30 "$python" -c "$environment" "$work/venv"
    part packages 60 "${pip[@]}" 'nanobind>=3.0,<4' 'scikit-build-core>=1.0,<2' 'pytest>=9,<10' 'hypothesis>=6.150,<7' \
        'pytest-timeout>=2.3,<3' 'pytest-xdist>=3.6,<4' 'onnx>=1.20,<2' 'onnxruntime>=1.20,<2'
    part build "$seconds" "${pip[@]}" --no-build-isolation --config-settings=build-dir="$work/build" \
        "${@/#/--config-settings=cmake.define.}" --editable '.[cuda]'
    library tensorrt-rtx 'tensorrt-rtx-cu13>=1.7,<2'
    library onnxruntime-gpu 'onnxruntime-gpu>=1.24,<2'
    library onnxscript 'onnxscript>=0.7,<1'
    part doctor 30 "$bin/samg-fast" doctor --json "$out/doctor.json"
}

on_a_gpu() {
    # Where ONNX Runtime finds CUDA's libraries: PyTorch's copies are among what is borrowed, not beside it.
    LD_LIBRARY_PATH=$("$python" -c 'if True:
        import glob, sys
        print(*(folder for path in sys.path for folder in sorted(glob.glob(path + "/nvidia/*/lib"))), sep=":")
    ')${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH
    local capability
    capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d .)
    [[ $capability =~ ^[0-9]+$ ]] || capability=90
    prepare 200 SAMG_CUDA=ON SAMG_CUDA_ARCHITECTURES="$capability-real"
    local frames=tests/pipeline/gpu replays=tests/backends/tensorrt/test_replays.py
    local elsewhere="test_golden_frames or test_compute_sanitizer or test_nothing_leaks"
    # An illegal access spoils all that follows in its process: here that is its own file.
    tests kernels 90 -n 6 --dist loadfile --timeout=0 -m gpu tests/ops tests/devices
    part benchmark-kernels 90 "$bin/python" -m benchmarks.kernels --device cuda --json "$out/benchmark-kernels.json"
    tests replays 90 -m gpu $replays
    tests networks 150 -m gpu $frames tests/backends --ignore=$replays -k "not ($elsewhere)"
    export SAMG_TESTS_L0_VITS14=$work/l0-vits14 # exported by the first that needs it
    tests golden 180 -m gpu $frames -k test_golden_frames
    part benchmark-tiny 60 "$bin/python" -m benchmarks.gpu --bundle tiny --json "$out/benchmark-tiny.json"
    part benchmark-l0 180 "$bin/python" -m benchmarks.gpu --bundle l0-vits14 --exported "$SAMG_TESTS_L0_VITS14" \
        --json "$out/benchmark-l0.json"
    tests sanitizer 180 -n 4 -m gpu $frames -k test_compute_sanitizer
    tests leaks 150 -m gpu $frames -k test_nothing_leaks
    tests rest 90 -m gpu tests --ignore=tests/ops --ignore=tests/devices --ignore=tests/backends --ignore=$frames
}

rehearsal() {
    local cuda=OFF
    command -v nvcc >/dev/null && cuda=ON
    prepare 600 SAMG_TESTS=ON SAMG_CUDA=$cuda SAMG_CUDA_ARCHITECTURES=90-real
    expected=3 part fails 10 bash -c 'exit 3'
    expected=124 part hangs 1 sleep 60
    tests kernels 240 -n 2 --dist loadfile --timeout=0 -m "not gpu" tests/ops tests/devices \
        -k "test_fast_is_the_reference and simt-shuffled or stub"
    part benchmark-kernels 90 "$bin/python" -m benchmarks.kernels --device cpu --models tiny --rounds 2 --copy-mib 64 \
        --json "$out/benchmark-kernels.json"
    tests replays 240 -m "not gpu" tests/backends/tensorrt/test_replays.py
    tests networks 240 -m "not gpu" tests/pipeline/gpu/test_on_gpu.py -k "fake-forward"
    part ahead-of-time 120 "$bin/samg-fast" build tiny --backend tensorrt-rtx --compute-capability 8.9 \
        --json "$out/ahead-of-time.json"
    leave_out golden "golden frames through networks on a GPU need a GPU"
    tests benchmark-tiny 240 -m "not gpu" tests/benchmarks -k "test_the_whole_way_on_a_fake_gpu"
    leave_out benchmark-l0 "benchmarks.gpu needs a GPU"
    leave_out sanitizer "compute-sanitizer needs a GPU"
    leave_out leaks "10,000 frames on a GPU need a GPU"
    leave_out rest "no other test marked gpu runs without a GPU"
}

ended_well=true
if ! $list; then
    commit=${commit:-$(git describe --always --dirty 2>/dev/null || echo unknown)}
    mkdir -p "$out" "$work" || exit 2
    rm -f "$out/summary.json"
fi
if $rehearse; then rehearsal; else on_a_gpu; fi
$list || echo "$SECONDS s in all; $out/summary.json"
$ended_well

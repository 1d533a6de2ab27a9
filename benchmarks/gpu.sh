#!/usr/bin/env bash
# The tests and the benchmarks on one GPU, in less than eight minutes.
#
#   benchmarks/gpu.sh                  all parts, at sizes that fill the card
#   benchmarks/gpu.sh choices loops    these parts
#   benchmarks/gpu.sh --quick          tiny arrays, on the device that JAX finds, a CPU too: to test this script
#
# It needs a Python with jax for CUDA: PYTHON, or else python3. It installs nothing, needs no network, and stops at once where JAX
# finds no GPU. Every part has a time limit, and the limit of a late part is what is left of the whole. A part that fails or is
# stopped does not end the others; the script then ends with 1 and names it.
#
# The parts, in this order:
#   choices     time of every choice beside a softmax and a copy on the device, compile time, a network     choices.py
#   loops       passes and time of each loop                                                                loops.py
#   buffers     the same with the loops in command buffers                                                  loops.py --in-buffers
#   worst       a profile of the choice with the largest ratio                                              worst.py
#   tests       the part of the tests that computes: choices, oracles, orders, masks, float64               pytest -p on_device
#   order, losses, heatmaps, structures, perturbed                                                          the scripts of these names
#
# The tables go as JSON to benchmarks/results, or with --quick to build/benchmarks. What all parts print is in gpu.txt beside them.
set -euo pipefail
cd "$(dirname "$0")/.."

parts=(choices loops buffers worst tests order losses heatmaps structures perturbed)
declare -A limits=([choices]=170 [loops]=40 [buffers]=40 [worst]=25 [tests]=160 [order]=60 [losses]=45 [heatmaps]=30 [structures]=45 [perturbed]=45)
sizes=card whole=460 results=benchmarks/results
if [ "${1:-}" = --quick ]; then
    shift
    sizes=smoke whole=900 results=build/benchmarks
    for part in "${parts[@]}"; do limits[$part]=200; done
fi
for part in "$@"; do
    if [ -z "${limits[$part]:-}" ]; then
        echo "gpu.sh: there is no part $part; the parts are ${parts[*]}" >&2
        exit 2
    fi
done
if [ $# -gt 0 ]; then chosen=("$@"); else chosen=("${parts[@]}"); fi

python=${PYTHON:-python3}
export PYTHONPATH="$PWD:$PWD/tests${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
if [ "$sizes" = card ]; then
    # Named, so that JAX raises an error where it would use the CPU instead. Callbacks need the CPU beside the GPU.
    export JAX_PLATFORMS="${JAX_PLATFORMS:-cuda,cpu}"
fi
if ! found=$("$python" -c 'import jax; print(jax.default_backend(), jax.__version__)'); then
    echo "gpu.sh: jax does not start with $python and JAX_PLATFORMS=${JAX_PLATFORMS:-}: nothing was run" >&2
    exit 1
fi
device=${found% *}
if [ "$sizes" = card ] && [ "$device" != gpu ]; then
    echo "gpu.sh: JAX computes on $device, and no GPU was found: nothing was run. --quick runs on a CPU" >&2
    exit 1
fi

mkdir -p "$results" build/benchmarks
table="$results/gpu-$sizes-$device-jax${found#* }.txt"
failed=()
: >"$table"

say() {
    echo "$*" | tee -a "$table"
}

run() { # part command...
    local part=$1 log="build/benchmarks/$1.err" begun=$SECONDS limit=${limits[$1]} status=0
    shift
    if [ $((whole - SECONDS)) -lt "$limit" ]; then limit=$((whole - SECONDS)); fi
    say "
== $part, at most $limit s"
    if [ "$limit" -lt 10 ]; then
        failed+=("$part (no time was left)")
        say "== $part: not run, no time was left"
        return
    fi
    timeout --kill-after=10 "$limit" "$@" 2>"$log" | tee -a "$table" || status=$?
    case $status in
    0) say "== $part: $((SECONDS - begun)) s" ;;
    124 | 137) failed+=("$part (stopped after $limit s)") ;;
    *) failed+=("$part (status $status)") ;;
    esac
    if [ "$status" != 0 ]; then
        say "== $part: FAILED with status $status after $((SECONDS - begun)) s; the end of its error output:"
        tr '\r' '\n' <"$log" | tail -n 25 | tee -a "$table"
    fi
}

run_tests() {
    if ! "$python" -c 'import pytest'; then
        say "
== tests: NOT RUN, pytest is not installed"
        failed+=("tests (pytest is not installed)")
        return
    fi
    local workers=() files=(tests/oracles/test_ranking.py)
    if [ "$sizes" = card ]; then
        files+=(tests/oracles/test_vertices.py tests/oracles/test_vertices_compiled.py tests/choices tests/order tests/laws/test_semantics.py tests/laws/test_exact.py)
        files+=(tests/readouts tests/losses/test_entmax_loss.py tests/smoothings/test_sparsemap.py)
        if "$python" -c 'import xdist'; then
            workers=(-n 12 --dist loadgroup --no-loadscope-reorder)
        else
            say "pytest-xdist is not installed: one process runs the tests, and the time limit may stop it"
        fi
    fi
    # addopts and plugins as in pyproject.toml, but for the number of processes
    XLA_PYTHON_CLIENT_PREALLOCATE=false run tests "$python" -m pytest -o addopts= -q -ra --strict-markers --import-mode=importlib \
        -m 'not slow' "${workers[@]}" -p on_device --device "$device" --table "$results/tests-$sizes-$device-jax${found#* }.json" "${files[@]}"
}

say "gpu.sh: $device, jax ${found#* }, $("$python" --version), $(nproc) cores, sizes: $sizes"
if command -v nvidia-smi >/dev/null; then
    say "$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true)"
fi
for part in "${chosen[@]}"; do
    case $part in
    tests) run_tests ;;
    loops) run loops "$python" benchmarks/loops.py --sizes "$sizes" ;;
    buffers) run buffers "$python" benchmarks/loops.py --sizes "$sizes" --in-buffers ;;
    *) run "$part" "$python" "benchmarks/$part.py" --sizes "$sizes" ;;
    esac
done

say "
gpu.sh: $SECONDS s, the table is in $table"
if [ ${#failed[@]} -gt 0 ]; then
    say "gpu.sh: FAILED: $(printf '%s; ' "${failed[@]}")"
    exit 1
fi

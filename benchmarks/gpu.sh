#!/bin/sh
# The herd beside llama-server on one GPU: an 8 B model in Q4_0, 1 to 128 clients, and prompts that begin alike.
#
# usage: sh benchmarks/gpu.sh [FOLDER]     (in the project's root, after `make setup`)
#
# Needs: an NVIDIA GPU with 40 GB or more (both sides are loaded at once; 24 GB do up to 32 clients) and its driver,
# a CUDA toolkit (`nvcc`) that knows the GPU, a C++ compiler, 30 GB of disk, 16 GB of memory (and 2 GB for each core
# while it builds), and a package index. No model is downloaded: random weights of the shape are written on the spot.
# It builds llama.cpp with CUDA twice, for the worker and for llama-server, into FOLDER (default: `gpu` beside the
# other peers in the cache), and leaves the project's own .venv alone. The first run takes about an hour on 16 cores.
#
# `throughput` runs twice: as the worker is by itself (a part of the KV cache for each slot), and with one cache for all.
#
# Settings: BENCH_CLIENTS (1,8,32,64,128), BENCH_MODEL (8b), BENCH_GPU_LAYERS (-1: all), BENCH_THREADS (all cores),
# BENCH_ROUNDS (3), CUDA_VISIBLE_DEVICES (0: the first GPU, for both sides), CUDA_ARCHITECTURES (that of this GPU,
# such as 90). Results are printed, and written to FOLDER/results.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cache=${BENCH_PEERS:-$HOME/.cache/llama-herder/peers}
folder=${1:-$cache/gpu}
# One GPU for both sides, numbered as nvidia-smi does.
export CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES:-0}"

say() { printf '%s\n' "gpu.sh: $*" >&2; }
need() {
    command -v "$1" >/dev/null 2>&1 || {
        say "$1 is missing: $2"
        exit 1
    }
}

need nvidia-smi "install the NVIDIA driver"
need nvcc "install the CUDA toolkit and put its bin folder on PATH"
need awk "install it (Debian: apt-get install mawk)"
need c++ "install a C++ compiler (Debian: apt-get install build-essential)"
[ -x "$root/.venv/bin/python" ] || {
    say "run 'make setup' first"
    exit 1
}
nvidia-smi --query-gpu=index,name,memory.total,driver_version --format=csv,noheader | sed 's/^/gpu.sh: GPU /' >&2
say "measuring on GPU $CUDA_VISIBLE_DEVICES"
# Older versions of CMake do not know `native`.
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader --id="$CUDA_VISIBLE_DEVICES" 2>/dev/null | head -n 1)
capability=$(printf '%s' "$capability" | sed -n 's/^ *\([0-9]*\)\.\([0-9]*\) *$/\1\2/p')
architectures=${CUDA_ARCHITECTURES:-${capability:-native}}
# A toolkit that no ld.so.conf names is found by both sides, while they are built and when they run.
toolkit=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")
if [ -d "$toolkit/lib64" ] && [ "$toolkit" != /usr ]; then
    export LD_LIBRARY_PATH="$toolkit/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
CUDACXX=${CUDACXX:-$(command -v nvcc)}
export CUDACXX

mkdir -p "$folder/results"
folder=$(cd "$folder" && pwd)
venv=$folder/venv
uv=$root/.venv/bin/uv
cd "$root"

# 1. An environment like the project's, its llama-cpp-python built with CUDA. A wheel without it that uv has kept is
#    not taken: the package alone is built afresh, into a cache of its own.
if [ ! -f "$venv/complete" ]; then
    rm -rf "$venv"
    "$uv" venv --quiet --python "$root/.venv/bin/python" "$venv"
    pins=$folder/requirements.lock
    pin=$(sed -n 's/^\(llama-cpp-python==[0-9.]*\).*/\1/p' requirements.lock)
    # Everything else as it is locked, then the one package, whose source has its hash in the same lock.
    awk '/^[a-zA-Z0-9]/ { skip = /^llama-cpp-python==/ } !skip' requirements.lock >"$pins"
    awk '/^[a-zA-Z0-9]/ { take = /^llama-cpp-python==/ } take' requirements.lock >"$folder/llama.lock"
    "$uv" pip install --quiet --python "$venv/bin/python" --require-hashes --requirement "$pins"
    say "building $pin with CUDA for the worker"
    CMAKE_ARGS="-DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=$architectures" UV_CACHE_DIR="$folder/uv" \
        "$uv" pip install --python "$venv/bin/python" --no-deps --no-binary llama-cpp-python \
        --require-hashes --requirement "$folder/llama.lock"
    "$uv" pip install --quiet --python "$venv/bin/python" --no-deps --editable .
    # The peers' source package is fetched by pip, and environments of theirs are made by uv.
    "$uv" pip install --quiet --python "$venv/bin/python" pip uv
    touch "$venv/complete"
fi
"$venv/bin/python" -c 'import llama_cpp, sys; sys.exit(not llama_cpp.llama_supports_gpu_offload())' || {
    say "the worker's llama.cpp sees no GPU; is GPU $CUDA_VISIBLE_DEVICES there? If so, remove $venv, run this again,"
    say "and look at the build's output"
    exit 1
}

# 2. llama-server with CUDA, from the same llama.cpp; 3. the model.
export BENCH_CMAKE="-DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=$architectures"
export BENCH_MODEL="${BENCH_MODEL:-8b}" BENCH_GPU_LAYERS="${BENCH_GPU_LAYERS:--1}"
export BENCH_CLIENTS="${BENCH_CLIENTS:-1,8,32,64,128}"
"$venv/bin/python" -m benchmarks.peers llama
"$venv/bin/python" -m benchmarks.models "$BENCH_MODEL"

# 4. Measure. Host processor time is in the labels `ring_host_ms@N` and `llama_server_host_ms@N`, per token.
measure() { # BENCHMARK RESULT
    say "measuring $2"
    "$venv/bin/python" -m benchmarks "$1" --rounds "${BENCH_ROUNDS:-3}" >"$folder/results/$2.txt"
    cat "$folder/results/$2.txt"
}
measure throughput throughput
(export BENCH_KV_UNIFIED=on && measure throughput throughput-in-one-cache)
measure shared_prefix shared_prefix
say "results are in $folder/results"

#!/bin/sh
# The herd beside llama-server on one GPU: an 8 B model in Q4_0, 1 to 128 clients, and prompts that begin alike.
#
# usage: sh benchmarks/gpu.sh [FOLDER]     (in the project's root, after `make setup`)
#
# Needs: an NVIDIA GPU with 40 GB or more (both sides are loaded at once; 24 GB do up to 32 clients) and its driver,
# the CUDA toolkit (`nvcc`), a C++ compiler, 30 GB of disk, 16 GB of memory, and a package index. No model is
# downloaded: random weights of the shape are written on the spot.
# It builds llama.cpp with CUDA twice, for the worker and for llama-server, into FOLDER (default: `gpu` beside the
# other peers in the cache), and leaves the project's own .venv alone. The first run takes about an hour on 16 cores.
#
# Settings: BENCH_CLIENTS (1,8,32,64,128), BENCH_MODEL (8b), BENCH_GPU_LAYERS (-1: all), BENCH_THREADS (all cores),
# BENCH_ROUNDS (3), CUDA_ARCHITECTURES (native). Results are printed, and written to FOLDER/results.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cache=${BENCH_PEERS:-$HOME/.cache/llama-herder/peers}
folder=${1:-$cache/gpu}
architectures=${CUDA_ARCHITECTURES:-native}

say() { printf '%s\n' "gpu.sh: $*" >&2; }
need() {
    command -v "$1" >/dev/null 2>&1 || {
        say "$1 is missing: $2"
        exit 1
    }
}

need nvidia-smi "install the NVIDIA driver"
need nvcc "install the CUDA toolkit and put its bin folder on PATH"
need c++ "install a C++ compiler (Debian: apt-get install build-essential)"
[ -x "$root/.venv/bin/python" ] || {
    say "run 'make setup' first"
    exit 1
}
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader | sed 's/^/gpu.sh: /' >&2

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
    # Everything else as it is locked, then the one package; its hash is in the same lock.
    awk '/^[a-zA-Z0-9]/ { skip = /^llama-cpp-python==/ } !skip' requirements.lock >"$pins"
    "$uv" pip install --quiet --python "$venv/bin/python" --require-hashes --requirement "$pins"
    say "building $pin with CUDA for the worker"
    CMAKE_ARGS="-DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=$architectures" UV_CACHE_DIR="$folder/uv" \
        "$uv" pip install --python "$venv/bin/python" --no-deps --no-binary llama-cpp-python "$pin"
    "$uv" pip install --quiet --python "$venv/bin/python" --no-deps --editable .
    # The peers' source package is fetched by pip, and environments of theirs are made by uv.
    "$uv" pip install --quiet --python "$venv/bin/python" pip uv
    touch "$venv/complete"
fi
"$venv/bin/python" -c 'import llama_cpp, sys; sys.exit(not llama_cpp.llama_supports_gpu_offload())' || {
    say "the worker's llama.cpp has no CUDA; remove $venv and look at the build's output"
    exit 1
}

# 2. llama-server with CUDA, from the same llama.cpp; 3. the model.
export BENCH_CMAKE="-DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=$architectures"
export BENCH_MODEL="${BENCH_MODEL:-8b}" BENCH_GPU_LAYERS="${BENCH_GPU_LAYERS:--1}"
export BENCH_CLIENTS="${BENCH_CLIENTS:-1,8,32,64,128}"
"$venv/bin/python" -m benchmarks.peers llama
"$venv/bin/python" -m benchmarks.models "$BENCH_MODEL"

# 4. Measure. Host processor time is in the labels `ring_host_ms@N` and `llama_server_host_ms@N`, per token.
for name in throughput shared_prefix; do
    say "measuring $name"
    "$venv/bin/python" -m benchmarks "$name" --rounds "${BENCH_ROUNDS:-3}" >"$folder/results/$name.txt"
    cat "$folder/results/$name.txt"
done
say "results are in $folder/results"

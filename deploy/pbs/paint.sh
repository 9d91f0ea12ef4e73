#!/usr/bin/env bash
# Paint a box under PBS:   qsub -v BOX=/scratch/box.zarr,OPTIONS="--seed 1" deploy/pbs/paint.sh
# mpirun must be that of mpi4py's MPI, built with PBS's tm or started with a hostfile ($PBS_NODEFILE).
# What was stopped early (exit status 75) is submitted again. This script was not tried under PBS.
#PBS -N bigbox
#PBS -l select=2:ncpus=32:mpiprocs=32
#PBS -l walltime=08:00:00
#PBS -r y
#PBS -j oe
set -uo pipefail
cd "$PBS_O_WORKDIR" || exit 2
if [ -n "${BIGBOX_ENV:-}" ]; then
    # shellcheck source=/dev/null
    source "$BIGBOX_ENV"
fi
ranks=$(wc -l < "$PBS_NODEFILE")
read -ra options <<< "${OPTIONS:-}"
read -ra bigbox <<< "${BIGBOX:-bigbox}"

# PBS sends SIGTERM before the end (kill_delay), with `qsig -s USR1` whenever one likes. It goes on as
# SIGUSR2: mpirun itself does not survive SIGTERM.
mpirun -n "$ranks" "${bigbox[@]}" paint "$BOX" "${options[@]}" --quiet &
ours=$!
trap 'kill -USR2 "$ours" 2> /dev/null' USR1 USR2 TERM
while :; do
    status=0
    wait "$ours" || status=$?
    kill -0 "$ours" 2> /dev/null || break
done
if [ "$status" -eq 75 ]; then
    export BOX OPTIONS=${OPTIONS:-} BIGBOX=${BIGBOX:-} BIGBOX_ENV=${BIGBOX_ENV:-}
    qsub -v BOX,OPTIONS,BIGBOX,BIGBOX_ENV "${BIGBOX_DEPLOY:-$PBS_O_WORKDIR/deploy}/pbs/paint.sh"
fi
exit "$status"

# What the job scripts beside this file share; each of them sources it. A batch system copies a script
# before it runs it, so a script finds its folder by where it was submitted from.
# shellcheck shell=bash
#
#   BIGBOX_ENV     a file to source first: module load ..., a virtual environment
#   BIGBOX_LAUNCH  how ranks are started; by default srun with the --mpi that fits mpi4py's MPI.
#                  "srun --mpi=pmix", "srun --mpi=pmi2", "mpirun"; "" for one rank without any
#   BIGBOX         the program (bigbox); "apptainer exec --nv bigbox.sif bigbox", for example
#   BIGBOX_STARTS  how often a job may start (100)

if [ -n "${BIGBOX_ENV:-}" ]; then
    # shellcheck source=/dev/null
    source "$BIGBOX_ENV"
fi
read -ra bigbox <<< "${BIGBOX:-bigbox}"

# Seconds after which a rank that was killed ends the others: without this they wait for it. At once
# (SLURM_KILL_BAD_EXIT) would hide the exit status of a refusal, which the first rank ends with.
export SLURM_WAIT=30

# bigbox_launch: the words of the launcher, one a line.
bigbox_launch() {
    if [ -n "${BIGBOX_LAUNCH+set}" ]; then
        tr -s ' ' '\n' <<< "$BIGBOX_LAUNCH"
    elif python3 -c 'import sys; from mpi4py import MPI; sys.exit("Open MPI" not in MPI.Get_library_version())' \
        2> /dev/null; then
        printf '%s\n' srun --mpi=pmix
    else
        printf '%s\n' srun --mpi=pmi2
    fi
}

# bigbox_run COMMAND...: the command on this job's ranks. An early warning goes on to them, whichever
# signal it is, as SIGUSR2: mpirun itself does not survive SIGTERM. What was stopped (exit status 75),
# or was killed after a warning, is put into the queue again, and up to three times what was killed
# without one; else the status is the command's.
bigbox_run() {
    local launch=() status=0 warned='' ours
    mapfile -t launch < <(bigbox_launch | sed '/^$/d')
    [ "${launch[0]:-}" != srun ] || bigbox_other_step
    "${launch[@]}" "${bigbox[@]}" "$@" &
    ours=$!
    trap 'warned=yes; kill -USR2 "$ours" 2> /dev/null' USR1 USR2 TERM
    while :; do
        status=0
        wait "$ours" || status=$?
        kill -0 "$ours" 2> /dev/null || break  # else a signal has ended the waiting
    done
    trap - USR1 USR2 TERM
    if [ "$status" -eq 75 ] || { [ "$status" -gt 2 ] && [ -n "$warned" ]; } \
        || { [ "$status" -gt 128 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 3 ]; }; then
        bigbox_again
    fi
    return "$status"
}

# bigbox_other_step: the next step has another number than at the job's earlier starts. MPICH names its
# shared memory by job and step; what a killed step has left of it on a node would be taken for that of
# the same step of the requeued job, which then ends in MPI_Init.
bigbox_other_step() {
    local start
    for ((start = 0; start < ${SLURM_RESTART_COUNT:-0}; start++)); do
        srun --nodes=1 --ntasks=1 --mpi=none true
    done
}

# bigbox_again: this job into the queue again; it ends here. One that was cancelled ends for good.
bigbox_again() {
    local job=${SLURM_JOB_ID:-}
    [ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    scontrol show job "$job" 2> /dev/null | grep -q 'JobState=RUNNING' || return 0
    if [ "${SLURM_RESTART_COUNT:-0}" -lt "${BIGBOX_STARTS:-100}" ]; then
        echo "stopped early: job $job goes into the queue again"
        scontrol requeue "$job"
        sleep 60  # Slurm ends this
    fi
}

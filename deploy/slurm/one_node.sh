#!/usr/bin/env bash
# A real Slurm of one node on this machine, to try job scripts on and to test them; not for users of a
# cluster. Needs root and Debian's packages, which `install` brings:
#   deploy/slurm/one_node.sh install
#   deploy/slurm/one_node.sh start FOLDER [CPUS]    FOLDER: its state and logs. CPUS: as many as it
#                                                   believes the node has (64)
#   export SLURM_CONF=FOLDER/slurm.conf
#   deploy/slurm/one_node.sh stop FOLDER            and everything that it started ends
# Partitions: `work` (jobs are preempted and requeued) and `urgent`, which preempts them.
set -euo pipefail

install() {
    # libpmix-dev holds the libpmix.so that srun --mpi=pmix loads.
    command -v slurmctld slurmd munged > /dev/null && dpkg -s libpmix-dev > /dev/null 2>&1 && return
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        slurmctld slurmd slurm-client munge libpmix-dev > /dev/null
}

start() {
    local folder=$1 cpus=${2:-64} host address memory
    mkdir -p "$folder/state" "$folder/spool" "$folder/munge"
    folder=$(cd "$folder" && pwd)
    chmod 700 "$folder/munge"
    host=$(hostname -s)
    address=127.0.0.1
    memory=$(($(awk '/^MemTotal/ {print $2}' /proc/meminfo) / 1024))
    head -c 1024 /dev/urandom > "$folder/munge/key"
    chmod 600 "$folder/munge/key"
    # Its own socket and key: a munge of this machine's own is left alone. The folder of a user must not
    # be one that others can write to, unless --force says that this is known.
    munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
        --pid-file="$folder/munge/pid" --seed-file="$folder/munge/seed" \
        --log-file="$folder/munge/log"
    cat > "$folder/slurm.conf" << CONF
ClusterName=one
SlurmctldHost=$host($address)
SlurmctldPort=26817
SlurmdPort=26818
SlurmUser=root
AuthType=auth/munge
# A requeued job waits for this many seconds (120 by default).
AuthInfo=socket=$folder/munge/socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,preempt_youngest_first
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
# MPICH names its shared memory by job and step: what an earlier Slurm here has left is not met again.
FirstJobId=$((RANDOM * 30 + 1000))
KillWait=10
NodeName=$host NodeAddr=$address CPUs=$cpus RealMemory=$memory State=UNKNOWN
PartitionName=work Nodes=$host Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=urgent Nodes=$host PriorityTier=10 PreemptMode=OFF
CONF
    export SLURM_CONF=$folder/slurm.conf
    slurmctld
    slurmd -N "$host"
    for _ in $(seq 60); do
        if sinfo --noheader --format=%t 2> /dev/null | grep -q '^idle'; then
            echo "SLURM_CONF=$SLURM_CONF"
            return
        fi
        sleep 0.5
    done
    tail -n 20 "$folder"/slurm*.log >&2
    echo "Slurm did not come up within 30 s" >&2
    stop "$folder"
    return 1
}

# Jobs first: what a killed slurmd leaves would go on.
stop() {
    local folder pid name
    folder=$(cd "$1" && pwd)
    export SLURM_CONF=$folder/slurm.conf
    timeout 10 scancel --user=root 2> /dev/null || true
    for _ in $(seq 30); do
        [ -z "$(timeout 5 squeue --noheader 2> /dev/null)" ] && break
        sleep 0.5
    done
    for name in slurmd.pid slurmctld.pid munge/pid; do
        pid=$(cat "$folder/$name" 2> /dev/null) || continue
        kill "$pid" 2> /dev/null || continue
        for _ in $(seq 40); do
            kill -0 "$pid" 2> /dev/null || break
            sleep 0.25
        done
    done
}

case ${1:-} in
    install | start | stop) "$@" ;;
    *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac

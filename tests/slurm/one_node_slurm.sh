#!/usr/bin/env bash
#
# Start a SLURM cluster that consists of this machine alone, run a command in it, and stop the cluster again.
#
#   bash tests/slurm/one_node_slurm.sh COMMAND [ARGUMENT...]
#
# Exit status: the command's own; 77 where such a cluster cannot be had (no root, no Debian packages, a real
# SLURM is configured here); 70 where it should have started but did not; 2 without a command.
#
# The daemons listen on 127.0.0.1 and need neither systemd nor cgroups. What the node claims to have comes from
# the environment, and may exceed what the machine has. Of a job SLURM enforces time and memory: a step that is seen,
# once a second, to use more memory than the job asked for is killed.
#   NODE_CPUS       default 4
#   NODE_MEMORY_MB  default 64000
#   NODE_GPUS       default 0; at most 4. Each is a character device such as /dev/null, enough for SLURM to book
#                   it and to set CUDA_VISIBLE_DEVICES, and nothing to compute on.
#   ACCOUNTING      yes: keep accounts of jobs in a database (MariaDB, slurmdbd), for sacct; default no
#   KEEP_LOGS       a folder that receives the daemons' logs

set -uo pipefail

readonly CANNOT_RUN_HERE=77 DID_NOT_START=70
readonly SYSTEM_CONF=/etc/slurm/slurm.conf
readonly ACCOUNTING=${ACCOUNTING:-no}
PACKAGES=(munge slurmctld slurmd slurm-client)
[[ $ACCOUNTING == no ]] || PACKAGES+=(slurmdbd mariadb-server)
readonly PACKAGES
readonly CONTROLLER_PORT=${SLURM_CONTROLLER_PORT:-16817} NODE_PORT=${SLURM_NODE_PORT:-16818}
readonly ACCOUNTING_PORT=${SLURM_ACCOUNTING_PORT:-16819}

cluster=""        # folder that holds everything of this cluster
daemons=()        # process ids, in the order in which they were started
command_group=""  # process group of the running command

say() { printf 'one_node_slurm: %s\n' "$*" >&2; }

refuse() {
  say "$1"
  exit "$CANNOT_RUN_HERE"
}

# Call a function until it succeeds, for so many seconds.
within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.2
  done
}

check_machine() {
  [[ $(id -u) == 0 ]] || refuse "needs root, to install packages and to run SLURM's daemons."
  command -v apt-get >/dev/null && command -v dpkg-query >/dev/null ||
    refuse "needs a Debian or Ubuntu system: it installs ${PACKAGES[*]} with apt-get."
  # Snakemake's job step clears SLURM_CONF before it calls srun, so this cluster has to own the standard place.
  if [[ -e $SYSTEM_CONF && ! ( -L $SYSTEM_CONF && $(readlink "$SYSTEM_CONF") == */one_node_slurm.*/slurm.conf ) ]]; then
    refuse "$SYSTEM_CONF belongs to another SLURM; it stays untouched."
  fi
}

install_packages() {
  local package missing=()
  for package in "${PACKAGES[@]}"; do
    [[ $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) == "install ok installed" ]] || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  say "installing ${missing[*]}"
  # Without this file, Debian starts the daemons while it installs them. It goes again unless it was there before.
  local policy=/usr/sbin/policy-rc.d own_policy=""
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && own_policy=yes
  fi
  local log=$cluster/install.log status=0
  { DEBIAN_FRONTEND=noninteractive timeout 400 apt-get -y --no-install-recommends install "${missing[@]}" ||
    { timeout 200 apt-get update &&
      DEBIAN_FRONTEND=noninteractive timeout 400 apt-get -y --no-install-recommends install "${missing[@]}"; }
  } >"$log" 2>&1 </dev/null || status=$?
  [[ -z $own_policy ]] || rm -f "$policy"
  if ((status)); then
    tail -n 15 "$log" >&2
    refuse "could not install ${missing[*]} (see above); is there a network and a Debian mirror?"
  fi
}

write_configuration() {
  local host gpu devices=(/dev/null /dev/zero /dev/full /dev/random) node_gres="" gres_types=""
  host=$(hostname -s)
  mkdir -p "$cluster"/{state,spool,log}
  chmod 755 "$cluster" "$cluster"/*
  (umask 077 && head -c 512 /dev/urandom >"$cluster/munge.key")

  : >"$cluster/gres.conf"
  if ((${NODE_GPUS:-0} > 0)); then
    for ((gpu = 0; gpu < NODE_GPUS; gpu++)); do
      printf 'Name=gpu File=%s\n' "${devices[gpu]}" >>"$cluster/gres.conf"
    done
    gres_types="GresTypes=gpu" node_gres="Gres=gpu:$NODE_GPUS"
  fi

  # Without accounts, finished jobs stay visible to squeue for an hour, longer than any test takes.
  local accounts="AccountingStorageType=accounting_storage/none"
  if [[ $ACCOUNTING != no ]]; then
    accounts="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$ACCOUNTING_PORT
AccountingStoragePass=$cluster/munge.socket"
    (umask 077 && cat >"$cluster/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$cluster/munge.socket
DbdHost=$host
DbdAddr=127.0.0.1
DbdPort=$ACCOUNTING_PORT
CommunicationParameters=NoInAddrAny
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StoragePass=only-through-a-socket
StorageLoc=slurm_accounts
LogFile=$cluster/log/slurmdbd.log
PidFile=$cluster/slurmdbd.pid
CONF
    )
  fi

  cat >"$cluster/slurm.conf" <<CONF
ClusterName=onenode
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$CONTROLLER_PORT
SlurmdPort=$NODE_PORT
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A job that is queued again waits until the credential of its first start has expired, by default two minutes.
AuthInfo=socket=$cluster/munge.socket,cred_expire=15

StateSaveLocation=$cluster/state
SlurmdSpoolDir=$cluster/spool
SlurmctldPidFile=$cluster/slurmctld.pid
SlurmdPidFile=$cluster/slurmd.pid
SlurmctldLogFile=$cluster/log/slurmctld.log
SlurmdLogFile=$cluster/log/slurmd.log

# No control groups: processes are found, and their memory is read, through /proc; nothing is pinned.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
MpiDefault=none
SlurmdParameters=config_overrides

$accounts
MinJobAge=3600

# Start jobs at once: this queue is short.
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
# A job larger than the node is refused at once; without this it would wait for ever.
EnforcePartLimits=ALL
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=500
KillWait=2
ReturnToService=2
$gres_types

NodeName=$host NodeAddr=127.0.0.1 CPUs=${NODE_CPUS:-4} RealMemory=${NODE_MEMORY_MB:-64000} $node_gres State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES DefaultTime=10 MaxTime=INFINITE State=UP
CONF
}

database() { mariadb --no-defaults --socket="$cluster/database.socket" --execute="$1"; }

start_accounts() {
  mkdir "$cluster/database"
  chown mysql: "$cluster/database"
  chmod 777 "$cluster"   # for the socket; mariadbd does not run as root
  mariadb-install-db --no-defaults --user=mysql --datadir="$cluster/database" --skip-test-db \
    --auth-root-authentication-method=socket >"$cluster/log/database_install.log" 2>&1 || give_up "no database could be made"
  launch mariadbd --no-defaults --user=mysql --datadir="$cluster/database" --socket="$cluster/database.socket" \
    --skip-networking --pid-file="$cluster/database/mariadbd.pid" --innodb-buffer-pool-size=128M \
    --innodb-lock-wait-timeout=900
  within 30 database "select 1" || give_up "MariaDB did not answer"
  chmod 755 "$cluster"
  database "create user 'slurm'@'localhost' identified by 'only-through-a-socket';
            grant all on slurm_accounts.* to 'slurm'@'localhost'"
  MYSQL_UNIX_PORT=$cluster/database.socket launch slurmdbd -D
  within 30 sacctmgr --noheader list cluster || give_up "slurmdbd did not answer"
  sacctmgr --immediate --quiet add cluster onenode >>"$cluster/log/console.log"
}

# Start a daemon in the foreground mode of its own, as a child of this script.
launch() {
  "$@" </dev/null >>"$cluster/log/console.log" 2>&1 8>&- &
  daemons+=("$!")
}

node_is_idle() { [[ $(sinfo --noheader --format=%T) == idle ]]; }

give_up() {
  say "$1; the daemons' last words:"
  tail -n 15 "$cluster"/log/*.log >&2
  exit "$DID_NOT_START"
}

start_cluster() {
  export SLURM_CONF=$cluster/slurm.conf
  mkdir -p "$(dirname "$SYSTEM_CONF")"
  ln -sfn "$SLURM_CONF" "$SYSTEM_CONF"
  ln -sfn "$cluster/gres.conf" "$(dirname "$SYSTEM_CONF")/gres.conf"
  [[ $ACCOUNTING == no ]] || ln -sfn "$cluster/slurmdbd.conf" "$(dirname "$SYSTEM_CONF")/slurmdbd.conf"
  launch munged --foreground --force --socket="$cluster/munge.socket" --key-file="$cluster/munge.key" \
    --pid-file="$cluster/munged.pid" --log-file="$cluster/log/munged.log" --seed-file="$cluster/munge.seed"
  within 15 munge --socket="$cluster/munge.socket" --no-input || give_up "munged did not answer"
  [[ $ACCOUNTING == no ]] || start_accounts
  launch slurmctld -D
  within 30 scontrol ping || give_up "slurmctld did not answer"
  launch slurmd -D
  within 30 node_is_idle || give_up "the node did not become idle"
}

# Process ids of what this cluster started and left behind, told by the configuration in their environment.
leftovers() { grep -lzs "^SLURM_CONF=$cluster/" /proc/[0-9]*/environ | cut -d / -f 3; }

ended() { ! kill -0 "$1" 2>/dev/null; }

no_job_left() { [[ -z $(squeue --noheader --states=PENDING,RUNNING,COMPLETING) ]]; }

stop_cluster() {
  trap - EXIT
  trap '' INT TERM HUP
  if [[ -n $command_group ]]; then
    kill -INT -- "-$command_group" 2>/dev/null   # on TERM, Snakemake would wait for its jobs
    within 10 ended "-$command_group" || kill -KILL -- "-$command_group" 2>/dev/null
  fi
  if ((${#daemons[@]} > 1)); then
    timeout 10 scancel --user=root --quiet 2>/dev/null
    within 10 no_job_left
  fi
  local position process
  for ((position = ${#daemons[@]} - 1; position >= 0; position--)); do
    process=${daemons[position]}
    kill -TERM "$process" 2>/dev/null
    within 10 ended "$process" || kill -KILL "$process" 2>/dev/null
    wait "$process" 2>/dev/null
  done
  for process in $(leftovers); do
    kill -KILL "$process" 2>/dev/null
  done
  if [[ -L $SYSTEM_CONF && $(readlink "$SYSTEM_CONF") == "$cluster/slurm.conf" ]]; then
    rm -f "$SYSTEM_CONF" "$(dirname "$SYSTEM_CONF")"/{gres,slurmdbd}.conf
  fi
  if [[ -n ${KEEP_LOGS:-} ]]; then
    mkdir -p "$KEEP_LOGS" && cp "$cluster"/log/*.log "$KEEP_LOGS"/ 2>/dev/null
  fi
  rm -rf "$cluster"
}

interrupted() {
  say "interrupted, stopping the cluster"
  exit $((128 + $1))
}

# The command gets a process group of its own and runs in the background: bash answers signals only between
# foreground commands, and stopping the group stops Snakemake together with what it started.
run_command() {
  local status=0
  set -m
  "$@" 8>&- &
  command_group=$!
  set +m
  wait "$command_group" || status=$?
  command_group=""
  return "$status"
}

(($#)) || { sed -n '3,5p' "$0" >&2; exit 2; }
check_machine
# One such cluster at a time: they share the ports and the standard configuration file.
exec 8>/run/one_node_slurm.lock
flock --timeout 900 8 || refuse "another one-node SLURM has been running on this machine for 15 minutes."
cluster=$(mktemp -d -t one_node_slurm.XXXXXX)
trap stop_cluster EXIT
trap 'interrupted 2' INT
trap 'interrupted 15' TERM
trap 'interrupted 1' HUP
install_packages
write_configuration
start_cluster
say "SLURM $(sinfo --version | cut -d ' ' -f 2) is up: ${NODE_CPUS:-4} CPUs, ${NODE_MEMORY_MB:-64000} MB, ${NODE_GPUS:-0} GPUs"
run_command "$@"

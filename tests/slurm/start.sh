#!/usr/bin/env bash
# A Slurm of two nodes on this one machine, for tests: start.sh FOLDER leaves it running, stop.sh FOLDER ends it.
# Needs root, munge and slurm-wlm (Debian). Each node has one core and one "GPU", which is only a name.
set -euo pipefail
folder=$(realpath -m "$1")
mkdir -p "$folder"/{state,spool-n1,spool-n2,munge}
chmod 700 "$folder/munge"
host=$(hostname -s)

dd if=/dev/urandom of="$folder/munge/key" bs=1 count=1024 status=none
chmod 400 "$folder/munge/key"
munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
  --log-file="$folder/munge/log" --seed-file="$folder/munge/seed" > "$folder/munge.log" 2>&1 < /dev/null

cat > "$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdTimeout=5
KillWait=1
InactiveLimit=0
GresTypes=gpu
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=16818 CPUs=1 RealMemory=1000 Gres=gpu:1 State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=16819 CPUs=1 RealMemory=1000 Gres=gpu:1 State=UNKNOWN
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
CONF
cat > "$folder/gres.conf" <<CONF
NodeName=n1 Name=gpu File=/dev/null
NodeName=n2 Name=gpu File=/dev/zero
CONF

export SLURM_CONF="$folder/slurm.conf"
# Daemons keep what they print to; whoever reads this script's output must not have to wait for their end.
{ slurmctld -f "$SLURM_CONF" && slurmd -N n1 -f "$SLURM_CONF" && slurmd -N n2 -f "$SLURM_CONF"; } \
  > "$folder/start.log" 2>&1 < /dev/null || { cat "$folder/start.log" >&2; exit 1; }
for _ in $(seq 50); do
  [ "$(sinfo -h -t idle -o %D 2>/dev/null)" = 2 ] && exit 0
  sleep 0.2
done
echo "the nodes did not come up: $(sinfo 2>&1)" >&2
exit 1

#!/usr/bin/env bash
# Ends what start.sh began in FOLDER.
folder=$(realpath -m "$1")
for pid in "$folder"/slurmd-*.pid "$folder"/slurmctld.pid "$folder"/munge/pid; do
  [ -f "$pid" ] && kill -9 "$(cat "$pid")" 2>/dev/null
done
# Of job steps, only those that were started with this configuration: a machine may have a Slurm of its own.
for step in $(pgrep slurmstepd); do
  grep -qzF "$folder" "/proc/$step/environ" 2>/dev/null && kill -9 "$step"
done
true

#!/usr/bin/env bash
# Ends what start.sh began in FOLDER.
folder=$(realpath -m "$1")
for pid in "$folder"/slurmd-*.pid "$folder"/slurmctld.pid "$folder"/munge/pid; do
  [ -f "$pid" ] && kill -9 "$(cat "$pid")" 2>/dev/null
done
pkill -9 -f "slurmstepd.*" 2>/dev/null
true

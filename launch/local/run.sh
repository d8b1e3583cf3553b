#!/usr/bin/env bash
# Runs the study {{name}} on this machine and restarts it until it is done.
#   bash run.sh          Ctrl-C or SIGTERM saves and stops it; the same command resumes it.
set -u
cd {{folder}} || exit 2
{{setup}}
export AEJAX_DATA={{data}}

study=({{program}} study {{study}} --directory {{directory}})
stopped=0
crashes=0
children=()

trap 'stopped=1; kill -TERM "${children[@]}" 2>/dev/null' INT TERM

# Waits for all children, even if a signal interrupts it; returns the highest exit status.
wait_all() {
  local child highest=0 status
  for child in "${children[@]}"; do
    wait "$child"
    status=$?
    while kill -0 "$child" 2>/dev/null; do # a signal ended the wait, not the child
      wait "$child"
      status=$?
    done
    if ((status > highest)); then highest=$status; fi
  done
  return "$highest"
}

for ((attempt = 0; attempt <= {{max_restarts}}; attempt++)); do
  children=()
  if (({{processes}} == 1)); then
    "${study[@]}" --workers {{workers}} &
    children=($!)
  else
    # The processes connect through one port of localhost and train every run together.
    port=$((20000 + RANDOM % 20000))
    for ((i = 0; i < {{processes}}; i++)); do
      AEJAX_COORDINATOR=localhost:$port AEJAX_NUM_PROCESSES={{processes}} AEJAX_PROCESS_ID=$i \
        "${study[@]}" &
      children+=($!)
    done
  fi
  wait_all
  status=$?
  if ((stopped || status == 0 || status == 2)); then exit "$status"; fi
  if ((status != 75 && ++crashes > 3)); then exit "$status"; fi
  echo "run.sh: ended with status $status; starting again" >&2
  sleep 1
done
exit "$status"

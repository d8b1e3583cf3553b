#!/usr/bin/env bash
# Starts all {{units}} units of the study {{name}} as managed jobs; SkyPilot queues and recovers them.
#   sky jobs queue               shows their states
set -eu
cd "$(dirname "$0")"
for ((unit = 0; unit < {{units}}; unit++)); do
  sky jobs launch --yes --detach-run --name "{{name}}-$unit" --env "UNIT=$unit" task.yaml
done

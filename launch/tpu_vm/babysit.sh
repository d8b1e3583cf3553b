#!/usr/bin/env bash
# Requests the slice of unit {{unit}} of {{units}} of the study {{name}}, replaces it after a
# preemption, and deletes it when the unit is done. It needs gcloud, and can be stopped and started
# again at any time.
#   nohup bash babysit.sh &
set -u
cd "$(dirname "$0")" || exit 2
id={{name}}-{{unit}}
tpus=(gcloud compute tpus queued-resources)
where=(--project={{project}} --zone={{zone}})
launched=gs://{{bucket}}/{{launched}}

say() { echo "$(date -u +%FT%TZ) $id: $*"; }

create() {
  local options=(
    --node-id="$id"
    --accelerator-type={{tpu}}
    --runtime-version={{runtime}}
    --metadata-from-file=startup-script=startup.sh
    --network={{network}}
    --service-account={{service_account}}
    --scopes=cloud-platform
    {{spot_flag}}
  )
  "${tpus[@]}" create "$id" "${where[@]}" "${options[@]}"
}

delete() { "${tpus[@]}" delete "$id" "${where[@]}" --force --quiet; }

describe() { "${tpus[@]}" describe "$id" "${where[@]}" --format='value(state.state)' 2>/dev/null; }

# The project: the study, your package and pyproject.toml.
gcloud storage cp ../project.tar.gz "$launched/" || exit 2
if ! describe >/dev/null; then # there is no slice: a status is that of an earlier launch
  gcloud storage rm "$launched/status.{{unit}}" 2>/dev/null
fi

lost=0
while true; do
  state=$(describe) || state=MISSING
  if status=$(gcloud storage cat "$launched/status.{{unit}}" 2>/dev/null); then
    say "ended with status $status"
    gcloud storage cat "$launched/log.{{unit}}"
    if [ "$state" != MISSING ]; then delete; fi
    exit "$status"
  fi
  case $state in
    MISSING)
      say "requesting {{tpu}}"
      create || say "the request failed; trying again"
      ;;
    FAILED | SUSPENDED)
      lost=$((lost + 1))
      say "$state, lost $lost times; replacing the slice"
      if ((lost > {{max_restarts}})); then exit 1; fi
      delete
      continue
      ;;
    *) say "$state" ;;
  esac
  sleep {{poll}}
done

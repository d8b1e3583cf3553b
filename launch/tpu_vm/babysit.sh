#!/usr/bin/env bash
# Requests the slice of unit {{unit}} of {{units}} of the study {{name}}, replaces it when it
# is taken away, and gives it back when the study is done. Needs gcloud, and can itself be stopped and
# started again at any time.
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

look() { "${tpus[@]}" describe "$id" "${where[@]}" --format='value(state.state)' 2>/dev/null; }

# The folder that was launched from: the study, the package of own parts, what they ask for.
gcloud storage cp ../project.tar.gz "$launched/" || exit 2
if ! look >/dev/null; then # not begun: a status there is an earlier launch's
  gcloud storage rm "$launched/status.{{unit}}" 2>/dev/null
fi

lost=0
while true; do
  state=$(look) || state=MISSING
  if status=$(gcloud storage cat "$launched/status.{{unit}}" 2>/dev/null); then
    say "ended with status $status"
    gcloud storage cat "$launched/log.{{unit}}"
    if [ "$state" != MISSING ]; then delete; fi
    exit "$status"
  fi
  case $state in
    MISSING)
      say "requesting {{tpu}}"
      create || say "refused; asking again"
      ;;
    FAILED | SUSPENDED)
      lost=$((lost + 1))
      say "$state, lost $lost times; replacing it"
      if ((lost > {{max_restarts}})); then exit 1; fi
      delete
      continue
      ;;
    *) say "$state" ;;
  esac
  sleep {{poll}}
done

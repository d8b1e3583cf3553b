#!/usr/bin/env bash
# Start-up script of every host of the slice: installs aejax, mounts the bucket, runs the study until
# it is done. All hosts run the same commands and find each other through the TPU's metadata. It runs
# at every boot and on every slice that replaces a lost one, so everything in it can be repeated.
#   log on a host: sudo journalctl -u google-startup-scripts -f
set -u
export HOME=/root DEBIAN_FRONTEND=noninteractive

attempt() { # retries a command: the network may not be ready right after boot
  local i
  for i in 1 2 3 4 5; do
    "$@" && return 0
    sleep $((5 * i))
  done
  return 1
}

metadata=http://metadata.google.internal/computeMetadata/v1/instance/attributes
worker=$(attempt curl -fs -H 'Metadata-Flavor: Google' "$metadata/agent-worker-number")
log=/var/log/aejax.log

finish() { # babysit.sh reads the status and deletes the slice
  if [ "$worker" = 0 ]; then
    tail -n 50 "$log" | gcloud storage cp - "gs://{{bucket}}/{{launched}}/log.{{unit}}"
    echo "$1" | gcloud storage cp - "gs://{{bucket}}/{{launched}}/status.{{unit}}"
  fi
  exit "$1"
}

if ! command -v gcsfuse >/dev/null; then
  key=/usr/share/keyrings/gcsfuse.asc
  attempt curl -fsSL -o "$key" https://packages.cloud.google.com/apt/doc/apt-key.gpg
  echo "deb [signed-by=$key] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" \
    >/etc/apt/sources.list.d/gcsfuse.list
  attempt apt-get update -q
  attempt apt-get install -yq gcsfuse python3-venv git
fi
mkdir -p /runs
mountpoint -q /runs || attempt gcsfuse --implicit-dirs {{bucket}} /runs

# The project: the study, the user's package and pyproject.toml.
archive="/runs/{{launched}}/project.tar.gz"
[ -f "$archive" ] || { echo "the bucket is not mounted, or has no $archive" >>"$log" && finish 2; }
mkdir -p /opt/project
cd /opt/project || finish 2
tar -xzf "$archive" || finish 2

if [ ! -x /opt/aejax/bin/aejax ]; then
  # The Python of the runtime image may be too old for aejax: uv installs one.
  python3 -m venv /opt/uv && attempt /opt/uv/bin/pip install -q uv
  attempt /opt/uv/bin/uv venv --allow-existing --python 3.12 /opt/aejax
  attempt /opt/uv/bin/uv pip install --python /opt/aejax/bin/python {{requirements}} >>"$log" 2>&1 ||
    { echo "the project's requirements cannot be installed" >>"$log" && finish 2; }
fi

export AEJAX_DATA={{data}}
export AEJAX_CLUSTER_TIMEOUT=900 # the hosts finish installing at different times

crashes=0
for ((i = 0; i <= {{max_restarts}}; i++)); do
  /opt/aejax/bin/aejax study {{study}} --run {{unit}}/{{units}} --directory {{directory}} \
    2>&1 | tee -a "$log"
  status=${PIPESTATUS[0]}
  if ((status == 0 || status == 2)); then break; fi
  if ((status != 75 && ++crashes > 3)); then break; fi
  sleep 5 # 75: saved, or a host was missing. All hosts start again and connect again
done
finish "$status"

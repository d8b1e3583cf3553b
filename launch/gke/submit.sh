#!/usr/bin/env bash
# Builds an image with the project, pushes it, and queues all {{units}} units of the study.
set -eu
cd "$(dirname "$0")"
docker build -t {{image}} . # {{build_flag}}
docker push {{image}} # {{build_flag}}
kubectl apply -f jobset.yaml

#!/usr/bin/env bash
# A run on TPUs of a GKE cluster through xpk (pip install xpk): the same command again goes on.
#
#   PROJECT=me ZONE=us-west4-a CLUSTER=pods TYPE=v5litepod-16 IMAGE=REGISTRY/flowjax \
#     experiments/pods/gke.sh NAME flowjax sweep gs://...
#
# IMAGE: a container in which `flowjax` is installed with the extra `tpu`.
set -euo pipefail

usage="usage: PROJECT=.. ZONE=.. CLUSTER=.. TYPE=.. IMAGE=.. $0 NAME COMMAND.."
: "${PROJECT:?$usage}" "${ZONE:?$usage}" "${CLUSTER:?$usage}" "${TYPE:?$usage}" "${IMAGE:?$usage}"
[[ $# -ge 2 ]] || { echo "$usage" >&2; exit 2; }
name=$1
shift

xpk workload create \
  --project "$PROJECT" --zone "$ZONE" --cluster "$CLUSTER" \
  --workload "$name" --tpu-type "$TYPE" --num-slices 1 \
  --docker-image "$IMAGE" \
  --command "$(printf '%q ' "$@")"

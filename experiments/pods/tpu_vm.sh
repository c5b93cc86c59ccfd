#!/usr/bin/env bash
# A run on a Cloud TPU slice that waits for its devices, spot by default: the same command again goes on.
#
#   PROJECT=me ZONE=us-west4-a TYPE=v5litepod-16 experiments/pods/tpu_vm.sh NAME flowjax sweep gs://...
#
# NAME is the queued resource and its node. Deletes a node that was preempted and asks for another.
# VERSION: the TPU VM's image. SOURCE: what is installed on every host, with a Python of its own.
# ON_DEMAND=1: no spot.
set -euo pipefail

usage="usage: PROJECT=.. ZONE=.. TYPE=.. $0 NAME COMMAND.."
: "${PROJECT:?$usage}" "${ZONE:?$usage}" "${TYPE:?$usage}"
[[ $# -ge 2 ]] || { echo "$usage" >&2; exit 2; }
name=$1
shift
version=${VERSION:-v2-alpha-tpuv5-lite}
source=${SOURCE:-flowjax-videollm[tpu,gcs]}
here=(--project "$PROJECT" --zone "$ZONE")
spot=(--spot)
[[ -z ${ON_DEMAND:-} ]] || spot=()

state() {
  gcloud compute tpus queued-resources describe "$name" "${here[@]}" \
    --format 'value(state.state)' 2>/dev/null || echo NONE
}

on_every_host() {
  gcloud compute tpus tpu-vm ssh "$name" "${here[@]}" --worker all --command "$1"
}

while true; do
  case $(state) in
    ACTIVE) break ;;
    NONE)
      gcloud compute tpus queued-resources create "$name" --node-id "$name" "${here[@]}" \
        --accelerator-type "$TYPE" --runtime-version "$version" "${spot[@]}" ;;
    SUSPENDED | FAILED)
      gcloud compute tpus queued-resources delete "$name" "${here[@]}" --force --quiet ;;
    *) sleep 30 ;;
  esac
done

on_every_host "python3 -m pip install --quiet --user uv &&
  ~/.local/bin/uv tool install --quiet --python 3.11 $(printf %q "$source")"
on_every_host "PATH=~/.local/bin:\$PATH $(printf '%q ' "$@")"

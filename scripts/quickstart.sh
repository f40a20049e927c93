#!/usr/bin/env bash
# From a fresh clone to a latency-accuracy Pareto of sparse prefill methods on a real language model: sets up, builds,
# fetches the model, measures experiments/pareto-quick.yaml and draws it. Run again, it goes on where it stopped.
#
#   scripts/quickstart.sh           draws a first figure after 15 minutes at most, with the same samples for every method,
#                                   then goes on to all five samples and draws it anew
#   scripts/quickstart.sh --first   stops after the first figure
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
first=no
case "${1:-}" in
  "") ;;
  --first) first=yes ;;
  *) echo "quickstart: unknown argument '$1' (--first is the only one)" >&2; exit 2 ;;
esac

step() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

step "set-up"
scripts/bootstrap.sh
step "build"
scripts/build.sh cpu prefillbench
step "model"
.venv/bin/python scripts/fetch_model.py smollm2-135m-instruct-128k | tail -n 1
# Exit status 1: some samples failed; the rows say which and why, the others are worth drawing.
measure() {
  status=0
  build/cpu/prefillbench run experiments/pareto-quick.yaml "$@" || status=$?
  [ $status -le 1 ] || exit $status
}
complete() {
  build/cpu/prefillbench plan experiments/pareto-quick.yaml --json | .venv/bin/python -c '
import json, sys
sys.exit(any(r["done"] < r["samples"] for r in json.load(sys.stdin)["runs"]))'
}
draw() {
  step "report"
  build/cpu/prefillbench report results/pareto-quick --out results/pareto-quick/report
  echo "Open results/pareto-quick/report/report.html in a browser."
}

budget=$((14 * 60 - SECONDS))
[ $budget -ge 120 ] || budget=120
step "measure for the first figure (Ctrl-C stops, the same command goes on)"
measure --budget $budget
draw
if [ $first = no ] && ! complete; then
  step "measure the rest (Ctrl-C stops, the same command goes on)"
  measure
  draw
fi
step "done"
exit $status

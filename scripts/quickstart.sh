#!/usr/bin/env bash
# From a fresh clone to a latency-accuracy Pareto of sparse prefill methods on a real language model: sets up, builds,
# fetches the model, measures experiments/pareto-quick.yaml and draws it. Run again, it goes on where it stopped.
#
#   scripts/quickstart.sh          stops measuring after about 15 minutes in all, with the same samples for every method
#   scripts/quickstart.sh --full   measures everything, however long it takes
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
full=no
case "${1:-}" in
  "") ;;
  --full) full=yes ;;
  *) echo "quickstart: unknown argument '$1' (--full is the only one)" >&2; exit 2 ;;
esac

step() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

step "set-up"
scripts/bootstrap.sh
step "build"
scripts/build.sh cpu prefillbench
step "model"
.venv/bin/python scripts/fetch_model.py smollm2-135m-instruct-128k | tail -n 1
step "measure (stop with Ctrl-C, run again to go on)"
budget=0
if [ $full = no ]; then
  budget=$((14 * 60 - SECONDS))
  [ $budget -ge 120 ] || budget=120
fi
status=0
build/cpu/prefillbench run experiments/pareto-quick.yaml --budget $budget || status=$?
[ $status -le 1 ] || exit $status
step "report"
build/cpu/prefillbench report results/pareto-quick --out results/pareto-quick/report
step "done"
echo "Open results/pareto-quick/report/report.html in a browser."
exit $status

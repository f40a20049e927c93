#!/usr/bin/env bash
# Sets up everything that building, testing and the quick start need on Debian or Ubuntu: system packages, a Python
# environment in .venv with LibTorch and the few packages of the scripts. Says what it does, does it once, and takes
# a moment when nothing is left to do.
#
#   scripts/bootstrap.sh          set up
#   scripts/bootstrap.sh --cuda   also the CUDA libraries that running on a GPU needs (4 GB)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() { echo "bootstrap: $*" >&2; exit 1; }
say() { echo "bootstrap: $*" >&2; }

with_cuda=no
for arg in "$@"; do
  case "$arg" in
    --cuda) with_cuda=yes ;;
    *) die "unknown argument '$arg' (--cuda is the only one)" ;;
  esac
done

# --- system packages ------------------------------------------------------------------------------------------------
packages=(g++ cmake ninja-build ccache git python3 python3-venv unzip libyaml-cpp-dev nlohmann-json3-dev libcli11-dev
  libpcre2-dev libsentencepiece-dev libutf8proc-dev libfmt-dev libgtest-dev libbenchmark-dev)
command -v dpkg-query > /dev/null ||
  die "dpkg was not found: this script knows Debian and Ubuntu; elsewhere install the equivalents of: ${packages[*]}"
missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$p" 2> /dev/null | grep -q 'ok installed' || missing+=("$p")
done
if [ ${#missing[@]} -gt 0 ]; then
  say "installing ${missing[*]}"
  sudo=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo > /dev/null || die "these packages are missing and there is no sudo: ${missing[*]}"
    sudo=(sudo)
  fi
  log=$(mktemp)
  if ! { "${sudo[@]}" apt-get update -qq &&
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } > "$log" 2>&1; then
    tail -n 5 "$log" >&2
    die "apt-get could not install ${missing[*]} (whole log: $log)"
  fi
  rm -f "$log"
fi

# --- Python environment ---------------------------------------------------------------------------------------------
# LibTorch comes out of the PyPI wheel. Without --cuda only what a CPU program loads is installed beside it: the wheel's
# own Python dependencies (4 GB of CUDA libraries) are left out, C++ does not need them.
torch=2.11.0
lean=("torch==$torch" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)
tools=(numpy==2.4.6 gguf==0.19.0 matplotlib==3.10.8 plotly==6.5.0)
venv="$PWD/.venv"
wanted="python $(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])') ${lean[*]} ${tools[*]} cuda=$with_cuda"
stamp="$venv/prefillbench.stamp"
have=$(cat "$stamp" 2> /dev/null || true)
if [ "$have" != "$wanted" ] && [ "$have" != "${wanted/cuda=no/cuda=yes}" ]; then
  need_mb=3000
  [ $with_cuda = yes ] && need_mb=8000
  free_mb=$(df -Pm . | awk 'NR==2 {print $4}')
  [ "$free_mb" -ge $need_mb ] || die "the disk has $free_mb MB left here, the Python environment needs $need_mb MB"
  say "setting up .venv with LibTorch $torch (a minute or two)"
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv" || die "python3 could not make a virtual environment (is python3-venv installed?)"
  pip=("$venv/bin/python" -m pip install --disable-pip-version-check --no-compile -q)
  log=$(mktemp)
  install() {
    "${pip[@]}" "$@" > "$log" 2>&1 && return
    tail -n 3 "$log" >&2
    die "pip could not install $* (is the package index reachable? whole log: $log)"
  }
  if [ $with_cuda = yes ]; then install "torch==$torch"; else install --no-deps "${lean[@]}"; fi
  install "${tools[@]}"
  rm -f "$log"
  echo "$wanted" > "$stamp"
fi

# --- prose ----------------------------------------------------------------------------------------------------------
# Four of RULER's tasks, perplexity and agreement read it; they say so themselves when it is not there.
if [ ! -f "${PREFILLBENCH_HOME:-$HOME/.cache/prefillbench}/prose/austen.txt" ]; then
  say "fetching the default prose"
  python3 scripts/fetch_prose.py > /dev/null || say "going on without it"
fi

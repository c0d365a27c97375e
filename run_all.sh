#!/usr/bin/env bash
# The one door for batch work: makes .venv on first use, then hands over to Python. `./run_all.sh --help` lists what it can do.
# Kept to what bash 3.2 (macOS) understands.
set -u
unset CDPATH
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P) || exit 2
venv="$root/.venv"
python="$venv/bin/python"
log="$root/build/setup.log"

usage() {
  cat <<'TEXT'
usage: ./run_all.sh [COMMAND] [OPTIONS]        from any folder; the first use makes .venv and installs the locked packages

  run          (default) run every notebook into build/PROFILE/, compare its checked cells with what is committed,
               write HTML pages with an index, print the claims and a summary; no tracked file changes without --update
  test [ARGS]  unit, property, parity and doctest suites, notebook rules, then nbval over notebooks/;
               with ARGS: only pytest ARGS
  nbval [ARGS] only the second half of test: every notebook runs again and its checked cells are compared
  setup        make or mend .venv and stop
  lab [ARGS]   JupyterLab in the right environment, in notebooks/
  train NAME   python -m tsfm_lib.train NAME [--minutes M] [--steps S] [--out DIR]
  bench        speed beside what you would pick instead, into build/bench.csv; with --peers beside the authors' packages, too,
               which are installed into build/peers; --only dtw,models/moirai and --quick make it shorter
  book         the executed notebooks as one site of web pages, build/book/index.html: map, search, scoreboard, figures (runs nothing)

options of run
  --profile quick|laptop|full   how much work is done (default quick)
  --only 10,11                  notebooks whose names begin with these
  --jobs N                      notebooks at a time (default 2; each has one thread)
  --timeout SECONDS             longest time for one notebook (default 900 quick, 14400 laptop, 604800 full)
  --resume                      skip what already succeeded with the same code, parameters and recorded numbers
  --update                      write executed notebooks back to notebooks/ (quick only) and recorded numbers to figures/
options of every command
  --online                      let notebooks and models look things up on the network
  --help

environment
  TSFM_DATA=FOLDER     benchmark data (see README); without it notebooks use generated and bundled series
  TORCH_INDEX=URL      take torch from this index, e.g. https://download.pytorch.org/whl/cpu (small, no CUDA)
  PYTHON=PATH          the Python to make .venv with (3.11 or newer)
TEXT
}

refuse() { echo "run_all.sh: $1" >&2; exit 2; }
give_up() { echo "run_all.sh: $1" >&2; exit 1; }

# ---- the environment -------------------------------------------------------------------------------------------------

find_python() {          # sets $base to the first Python that is new enough and can make environments
  local candidate version too_old="" no_venv=""
  if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3.13 python3.12 python3.11 python3 python; fi
  for candidate in "$@"; do
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    if ! "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      too_old="$candidate is $version"
    elif ! "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
      no_venv="$candidate"
    else
      base=$candidate
      return
    fi
  done
  [ -n "$no_venv" ] && give_up "$no_venv cannot make virtual environments: install its venv module (on Debian and Ubuntu: apt install python3-venv)."
  [ -n "$too_old" ] && give_up "Python 3.11 or newer is needed and $too_old: install a newer one, or name it with PYTHON=/path/to/python3."
  give_up "Python 3.11 or newer is needed and none was found${PYTHON:+ at $PYTHON}: install one, or name it with PYTHON=/path/to/python3."
}

explain() {              # one sentence for the usual reasons why pip failed
  local lacking reached
  reached=$(grep -c 'from versions: [0-9]' "$log")          # an index answered, and lists other versions
  if grep -qi -e 'no space left on device' -e 'disk quota exceeded' "$log"; then
    give_up "the disk is full: free some space (about 4 GB are needed, 8 GB with a CUDA build of torch) and run the same command again."
  elif [ "$reached" -eq 0 ] && grep -qi -e 'NewConnectionError' -e 'name resolution' -e 'Max retries exceeded' -e 'ConnectTimeout' -e 'ReadTimeout' \
       -e 'ProxyError' -e 'Network is unreachable' -e 'Connection refused' -e 'Failed to establish' "$log"; then
    give_up "no package index answered: check the network, or point PIP_INDEX_URL or TORCH_INDEX at an index that does (details: $log)."
  fi
  lacking=$(sed -n 's/.*No matching distribution found for \([^ ]*\).*/\1/p' "$log" | head -n 1)
  [ -n "$lacking" ] && give_up "the package index has no $lacking for $("$python" -V 2>&1): try another Python (PYTHON=...) or index (details: $log)."
  give_up "installation failed: $(grep -i 'error' "$log" | tail -n 1) (details: $log)."
}

install() { "$python" -m pip install --no-input --disable-pip-version-check "$@" >>"$log" 2>&1 || explain; }

stamp_now() { cat "$root/requirements.lock" "$root/pyproject.toml" | cksum | tr ' ' '-'; echo "$root"; }

setup() {
  local wanted free torch
  wanted=$(stamp_now)
  if [ -f "$venv/stamp" ] && [ "$(cat "$venv/stamp")" = "$wanted" ] && "$python" -c '' 2>/dev/null; then return; fi
  find_python
  free=$("$base" -c 'import shutil, sys; print(shutil.disk_usage(sys.argv[1]).free >> 20)' "$root") || free=999999
  [ "$free" -ge "${TSFM_MIN_FREE_MB:-4000}" ] ||
    give_up "the disk is nearly full: $free MB are free where .venv goes and ${TSFM_MIN_FREE_MB:-4000} MB are needed."
  mkdir -p "$root/build" && : >"$log" || give_up "cannot write into $root: check its permissions."
  if [ -e "$venv/unfinished" ] || ! "$python" -m pip --version >/dev/null 2>&1 ||
     ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    if [ -e "$venv" ]; then echo "set-up: .venv is half-made or broken, making it again"; else echo "set-up: making .venv with $base"; fi
    rm -rf "$venv" && mkdir -p "$venv" || give_up "cannot replace $venv: check its permissions."
    : >"$venv/unfinished"
    "$base" -m venv "$venv" >>"$log" 2>&1 || explain
  else
    echo "set-up: the list of packages or the place changed, bringing .venv up to date"
  fi
  rm -f "$venv/stamp"
  : >"$venv/unfinished"
  echo "set-up: installing the locked packages (some minutes the first time; log: build/setup.log)"
  if [ -n "${TORCH_INDEX:-}" ]; then
    torch=$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' "$root/requirements.lock")
    install --no-deps --index-url "$TORCH_INDEX" "$torch"
  fi
  install -r "$root/requirements.lock"
  install --no-deps --no-build-isolation -e "$root"
  rm -f "$venv/unfinished"
  echo "$wanted" >"$venv/stamp" || give_up "the disk is full: $venv/stamp could not be written."
  echo "set-up: done"
}

surroundings() {         # what every command runs in: nothing of the user's other Pythons, nothing written to the home folder
  unset PYTHONPATH PYTHONHOME MPLBACKEND
  export PYTHONNOUSERSITE=1 PYTHONHASHSEED=0 PYDEVD_DISABLE_FILE_VALIDATION=1
  export JUPYTER_CONFIG_DIR="$venv/var/jupyter/config" JUPYTER_DATA_DIR="$venv/var/jupyter/data" JUPYTER_RUNTIME_DIR="$venv/var/jupyter/runtime"
  export JUPYTERLAB_SETTINGS_DIR="$venv/var/jupyter/lab" JUPYTERLAB_WORKSPACES_DIR="$venv/var/jupyter/workspaces" JUPYTER_PREFER_ENV_PATH=1
  export IPYTHONDIR="$venv/var/ipython" MPLCONFIGDIR="$venv/var/matplotlib" NUMBA_CACHE_DIR="$venv/var/numba"
  mkdir -p "$IPYTHONDIR" "$MPLCONFIGDIR" "$NUMBA_CACHE_DIR" "$JUPYTER_RUNTIME_DIR"
  if [ "$online" = yes ]; then
    unset HF_HUB_OFFLINE TSFM_OFFLINE
  else
    export HF_HUB_OFFLINE=1 TSFM_OFFLINE=1
  fi
}

one_thread() {           # notebooks and tests: the same bytes on every run, and two of them fit two cores
  export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 VECLIB_MAXIMUM_THREADS=1 NUMEXPR_NUM_THREADS=1 NUMBA_NUM_THREADS=1
  export TQDM_DISABLE=1
}

# ---- the two halves of test ------------------------------------------------------------------------------------------

suites() { "$python" -m pytest -n 2 "$@"; }

nbval() {                # --dist loadscope keeps the cells of a notebook in one worker
  set -- "$@" "$root"/notebooks/*.ipynb
  if [ ! -e "$root/notebooks" ] || ! ls "$root"/notebooks/*.ipynb >/dev/null 2>&1; then echo "no notebooks yet"; return 0; fi
  "$python" -m pytest -o addopts= -q --tb=short -rf --nbval-lax --nbval-current-env -n 2 --dist loadscope --nbval-cell-timeout 600 \
    -p no:cacheprovider "$@"
}

verdict() { if [ "$1" -eq 0 ]; then echo ok; else echo FAIL; fi; }

both() {
  local began first second middle
  began=$(date +%s)
  suites; first=$?
  middle=$(date +%s)
  nbval; second=$?
  echo
  echo "suites:    $(verdict $first), $((middle - began)) s"
  echo "notebooks: $(verdict $second), $(($(date +%s) - middle)) s"
  [ $first -eq 0 ] && [ $second -eq 0 ]
}

# ---- dispatch --------------------------------------------------------------------------------------------------------

command=run
case "${1:-}" in
  -h | --help | help) usage; exit 0 ;;
  "" | -*) ;;
  *) command=$1; shift ;;
esac
case "$command" in
  run | test | nbval | setup | lab | train | bench | book) ;;
  *) refuse "no command '$command'; it knows run, test, nbval, setup, lab, train, bench and book (--help says more)." ;;
esac

online=no
count=$#
while [ "$count" -gt 0 ]; do          # takes --online out and leaves the other arguments as they are
  case "$1" in
    --online) online=yes ;;
    -h | --help) if [ "$command" = run ] || [ "$command" = setup ] || [ "$command" = book ]; then usage; exit 0; fi; set -- "$@" "$1" ;;
    *) set -- "$@" "$1" ;;
  esac
  shift
  count=$((count - 1))
done
if [ "$command" = run ]; then         # a misspelt option is refused before minutes go into the set-up
  for argument in "$@"; do
    case "$argument" in
      --profile | --only | --jobs | --timeout | --profile=* | --only=* | --jobs=* | --timeout=* | --update | --resume) ;;
      -*) refuse "no option '$argument' for run; --help lists them." ;;
    esac
  done
fi
case "$command" in
  setup | book | bench) [ $# -eq 0 ] || [ "$command" = bench ] || refuse "$command takes no arguments, got '$1'." ;;
  train) [ $# -gt 0 ] || refuse "train needs the name of a recipe: ./run_all.sh train NAME." ;;
esac

setup
surroundings
case "$command" in
  setup) echo "ready: $venv" ;;
  run) one_thread; exec "$python" -P -m tsfm_lib.batch run "$@" ;;
  book) one_thread; exec "$python" -P -m tsfm_lib.batch book ;;
  test) one_thread; cd "$root" || exit 2; if [ $# -gt 0 ]; then suites "$@"; else both; fi ;;
  nbval) one_thread; cd "$root" || exit 2; nbval "$@" ;;
  lab) cd "$root/notebooks" || exit 2; exec "$python" -m jupyterlab "$@" ;;
  train) exec "$python" -P -m tsfm_lib.train "$@" ;;
  bench) exec "$python" "$root/tests/benchmarks/run.py" "$@" ;;
esac

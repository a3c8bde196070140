#!/usr/bin/env bash
# Makes the virtual environment that everything runs in: ci/setup.sh FOLDER
#   PYTHON       interpreter to make it with, 3.11 or newer (python3)
#   TORCH        version of torch to install in place of the one in ci/constraints.txt; ===2.13.0 takes the build
#                that calls itself just so, which on PyPI is the one with CUDA
#   TORCH_INDEX  package index that torch comes from; the default has no CUDA in it, so that a laptop downloads
#                200 MB and not 3 GB. On a machine with cards: https://download.pytorch.org/whl/cu130
set -euo pipefail

folder=${1:?usage: ci/setup.sh FOLDER}
python=${PYTHON:-python3}
torch_index=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    printf '%s\nnext: %s\n' "$1" "$2" >&2
    exit 2
}

version=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) ||
    fail "no Python interpreter answers to '$python'" "make PYTHON=/path/to/python3.11 (or newer)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$python is Python $version; 3.11 is the oldest that works" "make PYTHON=python3.11 (or newer)"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python has no venv module" "apt-get install python${version%.*}-venv, or another PYTHON="

constraints=ci/constraints.txt
if [ -n "${TORCH:-}" ]; then
    constraints=$(mktemp)
    [[ $TORCH == =* ]] || TORCH="==$TORCH"
    { grep -v '^torch==' ci/constraints.txt; echo "torch$TORCH"; } >"$constraints"
fi

echo "Setting up $folder with Python $version${TORCH:+ and torch$TORCH}"
"$python" -m venv "$folder"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# pip's warnings are of no use to anybody unless it fails.
pip() {
    "$folder/bin/python" -m pip --disable-pip-version-check --quiet "$@" >"$log" 2>&1 || { cat "$log" >&2; return 1; }
}

# torch alone, from its own index: a general index would bring the CUDA build and gigabytes of libraries.
pip --retries 1 install --constraint "$constraints" --no-deps --index-url "$torch_index" torch ||
    fail "torch could not be installed from $torch_index" "make TORCH_INDEX=<an index that has the torch of ci/constraints.txt>"
pip install --constraint "$constraints" --editable ".[dev]" ||
    fail "the packages of pyproject.toml could not be installed" "read pip's message above; PIP_INDEX_URL names another index"

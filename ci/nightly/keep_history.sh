#!/usr/bin/env bash
# Adds the history of a night to branch nightly-history: keep_history.sh FOLDER
# A run has a file of its own, so tiers that end at the same moment never meet; only the push may have to be repeated.
set -euo pipefail
folder=${1:?usage: keep_history.sh FOLDER}
url="$GITHUB_SERVER_URL/$GITHUB_REPOSITORY"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! git clone --quiet --depth 1 --branch nightly-history "$url" "$work"; then
    git init --quiet --initial-branch nightly-history "$work"
    git -C "$work" remote add origin "$url"
fi
cp -r "$folder"/. "$work"
cd "$work"
git add .
git diff --cached --quiet && exit 0
git -c user.name=nightly -c user.email=nightly@users.noreply.github.com commit --quiet -m "nightly $GITHUB_RUN_NUMBER"
for _ in 1 2 3 4 5 6 7 8 9 10; do
    git push --quiet origin nightly-history && exit 0
    git fetch --quiet origin nightly-history
    git -c user.name=nightly -c user.email=nightly@users.noreply.github.com rebase --quiet FETCH_HEAD
done
echo "branch nightly-history could not be pushed in 10 tries" >&2
exit 1

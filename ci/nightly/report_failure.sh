#!/usr/bin/env bash
# Opens an issue that says what fails at night, or adds to the one that is open: report_failure.sh NAME
set -euo pipefail
title="Nightly: ${1:?usage: report_failure.sh NAME} fails"
text="[Night $GITHUB_RUN_NUMBER]($GITHUB_SERVER_URL/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID) failed at $GITHUB_SHA."
open=$(gh issue list --state open --limit 1000 --json number,title \
    --jq "[.[] | select(.title == \"$title\")][0].number // empty")
if [ -n "$open" ]; then
    gh issue comment "$open" --body "$text"
else
    gh issue create --title "$title" --body "$text"
fi

#!/usr/bin/env bash
# Breaks one rule of the hand-over on purpose: the demo must fail, and its verdict say so.
#   demo_test.sh RULE     drop_record, skip_final_sweep or start_early (agentd/job.c)
# Needs a build with crash points (preset faults). The digests of the agents are left out, so that
# what the agents do not notice by counting is left to the comparison of the demo.
set -euo pipefail

rule=$1
here=$(cd "$(dirname "$0")" && pwd)
json=$(mktemp)
trap 'rm -f "$json" "$json.log"' EXIT

if TOWLINE_FAULT=break.$rule:fail "$here/demo" --quick --preset faults --skip-verify \
    --json "$json" >"$json.log"; then
    cat "$json.log"
    echo "FAIL: the demo is content although this rule was broken: $rule"
    exit 1
fi
cat "$json.log"
if [[ ! -s $json ]] || ! jq -e '.verdict == "failed" and (.migrations | length > 0) and
    ([.migrations[].memory_equal] | all | not)' "$json" >/dev/null; then
    cat "$json"
    echo "FAIL: the demo failed for another reason than unequal memory"
    exit 1
fi
echo "noticed: $rule"

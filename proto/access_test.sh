#!/usr/bin/env bash
# The table in docs/security.md is that of the contract, and a method without the option, or with
# one that makes no sense, is refused.
#   access_test.sh ACCESS_TABLE CONTRACT PROTOC_C PROTOBUF_PROTOS
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
table=$1 contract=$2 protoc_c=$3 protos=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "access_test: $*" >&2
    exit 1
}

sed -n '/^<!-- access -->$/,/^<!-- end -->$/p' "$here/../docs/security.md" | sed '1d;$d' >"$work/doc"
"$table" markdown "$contract" >"$work/contract"
diff "$work/contract" "$work/doc" >&2 || fail "docs/security.md does not say what the contract says"

refused() { # OPTION WHY
    cat >"$work/x.proto" <<END
syntax = "proto3";
package towline.v1;
import "towline/v1/access.proto";
message Nothing {}
service X { rpc Do(Nothing) returns (Nothing) { $1 } }
END
    "$protoc_c" --descriptor_set_out="$work/x.pb" -I "$work" -I "$here" -I "$protos" "$work/x.proto"
    if "$table" c "$work/x.pb" >/dev/null 2>"$work/said"; then
        fail "accepted: $1"
    fi
    grep -qF "towline.v1.X/Do: $2" "$work/said" || fail "said of \"$1\": $(cat "$work/said")"
}

refused '' 'no option (access)'
refused 'option idempotency_level = IDEMPOTENT;' 'no option (access)'
refused 'option (access) = {};' 'nobody may call it'
refused 'option (access) = {roles: [ROLE_UNSPECIFIED]};' 'a role that does not exist'

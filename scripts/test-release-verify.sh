#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# Changes one digit in the list of HEAD's snapshot, and wants scripts/release-verify.sh to build the snapshot again, name that
# line alone, and fail.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
. "$root/scripts/lib/common.sh"
target=$(go env GOOS)_$(go env GOARCH)
work=$(mktemp -d "${TMPDIR:-/tmp}/apic-verify-test.XXXXXX")
trap 'rm -rf -- "$work"' EXIT

# HEAD is what is verified, without what is not committed.
git clone -q --no-hardlinks "$root" "$work/checkout"
git -C "$work/checkout" checkout -q --detach "$(git -C "$root" rev-parse HEAD)"
(cd "$work/checkout" && SNAPSHOT=1 TARGETS=$target scripts/release.sh >/dev/null)

# The last line is the binary's. Its first digit becomes another.
list=$work/SHA256SUMS
sed '$ { s/^[0-7]/8/; t
s/^./0/; }' "$work/checkout/dist/SHA256SUMS" >"$list"
changed=$(tail -n 1 "$list" | sed 's/.*  //')
[[ $(diff "$work/checkout/dist/SHA256SUMS" "$list" | grep -c '^[<>]') == 2 ]] || die 'FAILED: the list was not changed in one line'

cd "$work/checkout"
status=0
output=$(TARGETS=$target scripts/release-verify.sh "$list" 2>&1) || status=$?
((status != 0)) || die "FAILED: it took a list with a changed digit: $output"
grep -q 'DIFFERENT: ' <<<"$output" || die "FAILED: it failed with something else: $output"
differing=$(grep '^[<>] ' <<<"$output" || true)
[[ $(grep -c "  $changed\$" <<<"$differing") == 2 && $(wc -l <<<"$differing") == 2 ]] ||
  die "FAILED: it does not name $changed alone: $output"
note "it names $changed alone, and fails"

#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# Runs every fuzzer of the module, one after the other, for FUZZTIME each, which is a minute unless the caller says
# otherwise. Every one runs, whatever an earlier one found. What Go found to fail lies afterwards in testdata/fuzz beside
# the test; committed, it is a case of the unit tests from then on.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
. "$root/scripts/lib/common.sh"
cd "$root"

readonly fuzztime=${FUZZTIME:-1m}

# fuzzers lists a package and a fuzzer's name to a line. The source tells, which saves compiling every test of the module
# to ask it.
fuzzers() {
  local package file
  go list -f '{{range .TestGoFiles}}{{$.ImportPath}} {{$.Dir}}/{{.}}{{"\n"}}{{end}}{{range .XTestGoFiles}}{{$.ImportPath}} {{$.Dir}}/{{.}}{{"\n"}}{{end}}' ./... |
    while read -r package file; do
      sed -n "s|^func \(Fuzz[A-Za-z0-9_]*\)(.*|$package \1|p" "$file"
    done
}

# out_of_time recognises a run that failed with nothing but the end of its time: before 1.27, Go takes that for a failure
# when a worker is late to stop (go.dev/issue/75804). An input that fails is always reported.
out_of_time() { grep -qx '    context deadline exceeded' <<<"$1" && ! grep -Eq 'Failing input written|failure while testing seed' <<<"$1"; }

fuzz() {
  local package=$1 name=$2 output status=0
  output=$(go test -run '^$' -fuzz "^$name\$" -fuzztime "$fuzztime" "$package" 2>&1) || status=$?
  if ((status != 0)) && ! out_of_time "$output"; then
    printf '%s\n' "$output"
    return 1
  fi
  # The last count of what was run.
  note "$name: $(grep -o 'execs: [0-9]*' <<<"$output" | tail -n 1)"
}

found=$(fuzzers)
[[ -n $found ]] || die 'there is no fuzzer'
note "$(wc -l <<<"$found" | tr -d ' ') fuzzers, $fuzztime each"
failures=0
while read -r package name; do
  fuzz "$package" "$name" </dev/null || {
    note "FAILED: $name in $package"
    failures=$((failures + 1))
  }
done <<<"$found"

((failures == 0)) || die "$failures fuzzers found an input that fails"
note 'nothing found'

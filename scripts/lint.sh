#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# Everything that can be said against the source without running it. Every check runs, whatever an earlier one found.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
. "$root/scripts/lib/common.sh"
cd "$root"

failures=0

# check runs a command and notes its failure by name.
check() {
  local name=$1
  shift
  if ! "$@"; then
    note "FAILED: $name"
    failures=$((failures + 1))
  fi
}

formatted() {
  local files
  files=$(gofmt -l -- *.go cmd internal test) || return 1
  [[ -z $files ]] || {
    printf 'run make fmt: %s\n' "$files" >&2
    return 1
  }
}

sources() { find . -name .git -prune -o -path ./bin -prune -o -type f \( "$@" \) -print0; }

licensed() {
  local file missing=0
  while IFS= read -r -d '' file; do
    # Within the first five lines, for a build constraint, a "Code generated" line or a #! may come before it.
    if ! head -n 5 "$file" | grep -q '^\(//\|#\) SPDX-License-Identifier: MPL-2\.0$' ||
      ! head -n 5 "$file" | grep -q '^\(//\|#\) Copyright (c) The vault-plugin-secrets-apic authors$'; then
      printf 'no licence header: %s\n' "$file" >&2
      missing=1
    fi
  done < <(sources -name '*.go' -o -name '*.sh' -o -path ./.ci/run)
  return "$missing"
}

shell_sound() { sources -name '*.sh' -o -path ./.ci/run | xargs -0 shellcheck -x -P SCRIPTDIR; }

check gofmt formatted
check 'licence headers' licensed
check 'go vet' go vet ./...
check staticcheck go tool staticcheck ./...
check 'go mod tidy' go mod tidy -diff
if command -v shellcheck >/dev/null; then
  check shellcheck shell_sound
else
  note 'no shellcheck here; passing over the shell scripts'
fi

((failures == 0)) || die "$failures checks failed"
note 'nothing to say'

#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# Runs the commands of docs/install.md as written, for test-install.sh and test-image.sh. It is sourced, not run.
set -euo pipefail

page=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)/docs/install.md

# release_files leaves in dist the directory of a release's files: RELEASE_DIST, or that of a snapshot, made for these targets.
release_files() {
  # shellcheck disable=SC2154 # root is that of the script which sources this.
  [[ -n ${RELEASE_DIST:-} ]] || SNAPSHOT=1 TARGETS=$1 "$root/scripts/release.sh" >/dev/null
  # shellcheck disable=SC2034
  dist=${RELEASE_DIST:-$root/dist}
}

# page_start starts a stack and sets the variables that the operator of the page has.
page_start() {
  stack_start
  rm plugins/*
  # shellcheck disable=SC2034,SC2154 # The page's commands read them, and stack_dir is stack.sh's.
  PLUGIN_DIR=$stack_dir/plugins TOKEN_URL=$SIM/apikey API_URL=$SIM IAM_URL=$SIM
}

# block prints the page's blocks that have this text in them, but those that say that they are not executed.
block() {
  local found
  found=$(awk -v wanted="$1" '
    /^```sh$/ { on = 1; text = ""; next }
    /^```$/ { if (on && index(text, wanted) && !index(text, "# Not executed")) printf "%s", text; on = 0; next }
    on { text = text $0 "\n" }' "$page")
  [[ -n $found ]] || die "$page has no block with '$1' in it"
  printf '%s\n' "$found"
}

# run tries the page's blocks with these texts, in this shell, because they set variables for each other.
run() {
  local text commands
  for text in "$@"; do
    commands=$(block "$text")
    echo
    printf '%s\n' "$commands" | sed 's/^/    $ /'
    eval "set -e; $commands"
  done
}

# refused runs a block that must fail, and say this.
refused() {
  local why=$1 output
  if output=$(run "$2" 2>&1); then
    die "FAILED: '$2' took what was tampered with"
  fi
  # Without the commands themselves, which may have the same words.
  output=$(grep -v '^    \$ ' <<<"$output" || true)
  grep -qiE "$why" <<<"$output" || die "FAILED: '$2' failed with something else than '$why': $output"
  printf '\nrefused, as it should be: %s\n' "$(grep -iE "$why" <<<"$output" | tail -n 1)"
}

# flip changes one byte of a file, in its middle.
flip() {
  local at=$(($(wc -c <"$1") / 2)) byte
  byte=$(od -An -tu1 -j "$at" -N 1 "$1" | tr -d ' ')
  printf '%b' "\\x$(printf %x $((byte ^ 1)))" | dd of="$1" bs=1 seek="$at" conv=notrunc 2>/dev/null
}

#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# What every script here needs. It is sourced, not run.
set -euo pipefail

# note tells the person at the terminal something, and keeps it out of what a script answers with.
note() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

die() {
  note "$*"
  exit 1
}

# sha256 answers the digest of a file, or of standard input for a dash, with whichever tool the system has.
sha256() {
  if command -v sha256sum >/dev/null; then
    sha256sum -- "$1" | cut -d ' ' -f 1
  else
    shasum -a 256 -- "$1" | cut -d ' ' -f 1
  fi
}

#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# Prints the path of a tool that tools/<name> pins, on stdout, and everything else on stderr. Each tool has a module of its
# own, so that no tool's dependencies move another's or the plugin's. It is built from source once and kept in the
# user's cache.
#
#   scripts/tool.sh goreleaser
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
. "$root/scripts/lib/common.sh"

name=${1:?which tool, of those in tools/}
cd "$root/tools/$name"
# A workspace or flags of the caller's must not change what the pin says.
export GOWORK=off GOFLAGS='' CGO_ENABLED=0
unset GOOS GOARCH

package=$(sed -n 's/^tool //p' go.mod)
key=$({
  # The image's tool has source of its own.
  cat go.mod go.sum ./*.go 2>/dev/null || true
  go env GOVERSION GOOS GOARCH
} | sha256 -)
dir="${XDG_CACHE_HOME:-$HOME/.cache}/vault-plugin-secrets-apic/$name-${key:0:12}"

if [[ ! -x $dir/$name ]]; then
  note "building $name from source, once"
  mkdir -p "$dir"
  new=$(mktemp "$dir/$name.XXXXXX")
  trap 'rm -f "$new"' EXIT
  go build -mod=readonly -buildvcs=false -trimpath -o "$new" "$package" >&2
  chmod 755 "$new"
  mv -f "$new" "$dir/$name"
fi

printf '%s\n' "$dir/$name"

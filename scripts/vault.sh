#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# Prints the path of a Vault server on stdout and everything else on stderr.
#
# The server is, in this order: the file that VAULT_SERVER names; the `vault` on PATH, if it is a server of 1.16 or
# newer; the one that test/vault pins, built from source once and kept in the user's cache.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
. "$root/scripts/lib/common.sh"

readonly min_minor=16
readonly pin="$root/test/vault"
readonly package=github.com/hashicorp/vault

# usable_vault says whether a file is a Vault server that can run here: it answers with a release that is new enough,
# and it knows the `server` command, which client-only builds and wrappers do not. An Enterprise server refuses to
# start without a licence, so it counts only where there is one.
usable_vault() {
  local version
  version=$("$1" version 2>/dev/null </dev/null) || return 1
  [[ $version =~ ^Vault\ v([0-9]+)\.([0-9]+)\. ]] || return 1
  ((BASH_REMATCH[1] > 1 || (BASH_REMATCH[1] == 1 && BASH_REMATCH[2] >= min_minor))) || return 1
  [[ $version != *+ent* || -n ${VAULT_LICENSE:-}${VAULT_LICENSE_PATH:-} ]] || return 1
  "$1" server -help 2>&1 </dev/null | grep -q -- '-dev-no-store-token'
}

if [[ -n ${VAULT_SERVER:-} ]]; then
  # The caller has chosen: a release that is too old, or OpenBao, is theirs to try.
  "$VAULT_SERVER" version >&2 </dev/null || die "VAULT_SERVER=$VAULT_SERVER does not run"
  path=$(command -v -- "$VAULT_SERVER")
  printf '%s/%s\n' "$(cd "$(dirname "$path")" && pwd -P)" "$(basename "$path")"
  exit
fi

if path=$(command -v vault) && [[ $path == /* ]]; then
  if usable_vault "$path"; then
    note "using the vault on PATH: $path ($("$path" version 2>/dev/null </dev/null))"
    printf '%s\n' "$path"
    exit
  fi
  note "passing over $path: not a Vault server of 1.$min_minor or newer that can run here"
fi

command -v go >/dev/null || die "there is no Vault server here, and no Go to build one with"
cd "$pin"

# A workspace that this checkout happens to lie in must not change what the pin says.
export GOWORK=off CGO_ENABLED=0

# What it takes for the result to be that of a release build. Vault takes its version from its own source, but the date
# only from the linker, and without one it refuses every plugin that asks about its environment. `minimal` leaves out
# the built-in engines and storage back ends that nothing here mounts, and with them most of the compile time.
built=$(go list -m -f '{{with .Time}}{{.UTC.Format "2006-01-02T15:04:05Z"}}{{end}}' "$package")
flags=(-mod=readonly -buildvcs=false -trimpath -tags minimal
  -ldflags "-s -w -X $package/version.BuildDate=${built:-1970-01-01T00:00:00Z}")

version=$(go list -m -f '{{.Version}}' "$package")
key=$({
  cat go.mod go.sum
  printf '%s\n' "${flags[@]}"
  go env GOVERSION GOOS GOARCH
} | sha256 -)
dir="${XDG_CACHE_HOME:-$HOME/.cache}/vault-plugin-secrets-apic/vault-$version-${key:0:12}"
server="$dir/vault"

# Two that run at once build once: the second waits for the first. Where there is no flock both build, and since each
# moves a finished file into place, the last one changes nothing that matters.
if [[ ! -x $server ]]; then
  mkdir -p "$dir"
  if command -v flock >/dev/null; then
    exec 9>"$dir/lock"
    flock 9
  fi
fi

if [[ ! -x $server ]]; then
  note "building Vault $version from source, once; five to ten minutes on two cores"
  new=$(mktemp "$dir/vault.XXXXXX")
  trap 'rm -f "$new"' EXIT
  # The lock must not outlive this script in some helper process of Go's.
  go build "${flags[@]}" -o "$new" "$package" >&2 9>&-
  chmod 755 "$new"
  "$new" version >&2
  mv -f "$new" "$server"
fi

printf '%s\n' "$server"

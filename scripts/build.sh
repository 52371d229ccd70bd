#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# Builds bin/vault-plugin-secrets-apic and bin/apic-sim. The same source and Go give the same bytes anywhere, so that a
# digest in Vault's plugin catalogue can be checked by building again.
#
#   scripts/build.sh             build both
#   scripts/build.sh version     print the version they would get; so for commit and date
#   scripts/build.sh ldflags     print what the linker is told
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
. "$root/scripts/lib/common.sh"
cd "$root"

# A source archive that is unpacked inside some other repository must not take that one's tags for its own.
in_git() { [[ $(git rev-parse --show-toplevel 2>/dev/null) == "$root" ]] && git rev-parse -q --verify HEAD >/dev/null; }

version='' commit=unknown date=unknown
if in_git; then
  version=$(git describe --tags --match 'v*' 2>/dev/null || true)
  commit=$(git rev-parse HEAD)
  # The commit's date, not today's: the date of a build would make every build another file.
  date=$(TZ=UTC0 git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd)
  [[ -z $(git status --porcelain) ]] || commit+=-dirty
fi
# Without a tag it is the release that the changelog is working towards.
[[ -n $version ]] || version=$(sed -n 's/^## \[\{0,1\}\(v[0-9][^] ]*\).*/\1/p' CHANGELOG.md | head -n 1)
# Vault's catalogue accepts nothing but a semantic version with a leading v.
[[ $version =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$ ]] ||
  die "'$version' is no version: tag a release vX.Y.Z or head CHANGELOG.md with one"

# VCS stamping is off in the build because these say the same, and it fails where git distrusts the checkout's owner.
ldflags="-s -w -X main.version=$version -X main.commit=$commit -X main.date=$date"

case ${1:-} in
  '') ;;
  version | commit | date | ldflags)
    printf '%s\n' "${!1}"
    exit
    ;;
  *) die "there is no '$1' to print" ;;
esac

note "building $version ($commit)"
mkdir -p bin
trap 'rm -f bin/.*."$$"' EXIT
for command in vault-plugin-secrets-apic apic-sim; do
  # Built beside its place and moved there: a Vault that runs the old file keeps it, and no half-written one is started.
  CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "$ldflags" \
    -o "bin/.$command.$$" "./cmd/$command"
  mv -f "bin/.$command.$$" "bin/$command"
done

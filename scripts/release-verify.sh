#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# Builds HEAD's snapshot twice, in two directories, each with a module cache and a build cache of its own, and compares all
# digests. With the SHA256SUMS of a published release as its argument it builds once, and compares with that.
#
#   scripts/release-verify.sh [SHA256SUMS]
#
# TARGETS="linux_amd64" builds and compares no more than that.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
. "$root/scripts/lib/common.sh"

published=''
if [[ $# -gt 0 ]]; then
  published=$(cd "$(dirname "$1")" && pwd -P)/$(basename "$1")
  [[ -f $published ]] || die "there is no $published"
fi
cd "$root"
[[ -z $(git status --porcelain) ]] || note 'what is not committed is not built: HEAD is'

# Both builds are of this commit, though somebody commits meanwhile.
head=$(git rev-parse HEAD)
work=$(mktemp -d "${TMPDIR:-/tmp}/apic-verify.XXXXXX")
# A module cache is read-only, which keeps rm out of it too.
trap 'chmod -R u+w -- "$work" && rm -rf -- "$work"' EXIT

# build makes a snapshot of HEAD in a directory whose name has another length, for a path that got into a file.
build() {
  local directory=$1
  git clone -q --no-hardlinks "$root" "$directory/checkout"
  git -C "$directory/checkout" checkout -q --detach "$head"
  # The tools come from the user's cache: they are pinned by digest. One of them writes the image, with its certificates, so
  # that another machine's tool tells more about the image than this second build does.
  (cd "$directory/checkout" &&
    GOMODCACHE="$directory/modules" GOCACHE="$directory/cache" SNAPSHOT=1 scripts/release.sh >/dev/null)
  # No signature, which is another each time, but the lists that are signed.
  (cd "$directory/checkout/dist" && cat SHA256SUMS && printf '%s  provenance.json\n' "$(sha256 provenance.json)") >"$directory.sums"
}

# Before the caches are others.
for tool in goreleaser minisign cyclonedx-gomod image; do
  scripts/tool.sh "$tool" >/dev/null
done

build "$work/one"
if [[ -n $published ]]; then
  # The provenance names its builder, and is not in the list.
  sed -i.bak '/ provenance\.json$/d' "$work/one.sums"
  cp "$published" "$work/other.sums"
  # With some of the targets, those of the list, and the image if they are enough to make it.
  if [[ -n ${TARGETS:-} ]]; then
    made=${TARGETS// /|}
    ! grep -q '_image\.json$' "$work/one.sums" || made+='|image'
    grep -E "_($made)(\.|/)" "$published" >"$work/other.sums" || die "the list has none of $TARGETS"
  fi
else
  build "$work/the-other"
  mv "$work/the-other.sums" "$work/other.sums"
fi

if ! diff "$work/other.sums" "$work/one.sums"; then
  die "DIFFERENT: the lines above; < is ${published:-the second build}"
fi
note 'identical:'
cat "$work/one.sums"

#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# Makes a release in dist/: archives, their bills of materials, a container image of two of them, SHA256SUMS of all of them and
# of the binaries inside, the provenance, signatures, and the notes from CHANGELOG.md. It publishes nothing.
#
#   scripts/release.sh                what HEAD's tag vX.Y.Z names, signed with the key in RELEASE_SIGNING_KEY
#   SNAPSHOT=1 scripts/release.sh     what is there, signed with a key that is thrown away
#
# TARGETS="linux_amd64 darwin_arm64" leaves the others out of a snapshot. The image needs linux_amd64 and linux_arm64.
# docs/release.md says what each file is for.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
. "$root/scripts/lib/common.sh"
. "$root/scripts/lib/release.sh"
cd "$root"

readonly public_key=docs/release.pub

VERSION=$(scripts/build.sh version)
DATE=$(scripts/build.sh date)
LDFLAGS=$(scripts/build.sh ldflags)
commit=$(scripts/build.sh commit)
[[ $DATE != unknown ]] || die 'a release is made from a git checkout, whose commit dates it'
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export VERSION DATE LDFLAGS SOURCE_DATE_EPOCH

work=$(mktemp -d "${TMPDIR:-/tmp}/apic-release.XXXXXX")
trap 'rm -rf -- "$work"' EXIT

# notes cuts the version's section out of the changelog.
notes() { awk -v head="## [$VERSION]" 'index($0, "## ") == 1 { on = index($0, head) == 1; next } on' CHANGELOG.md; }

# releasable says what keeps HEAD from being a release, before anything is built.
releasable() {
  [[ $VERSION == "$(git describe --tags --exact-match --match 'v*' 2>/dev/null)" ]] || die "HEAD has no tag vX.Y.Z; SNAPSHOT=1 makes one without"
  [[ $commit != *-dirty ]] || die 'the checkout has changes that are not committed'
  grep -Eq "^## \[${VERSION//./\\.}\] - [0-9]{4}-[0-9]{2}-[0-9]{2}$" CHANGELOG.md ||
    die "CHANGELOG.md has no heading '## [$VERSION] - YYYY-MM-DD'"
  [[ -n ${RELEASE_SIGNING_KEY:-} ]] || die 'RELEASE_SIGNING_KEY does not hold the secret key; docs/release.md says how to make one'
  [[ -z ${TARGETS:-} ]] || die 'a release has all targets'
  local key
  for key in "$public_key" docs/image.pub; do
    [[ -f $key ]] || die "$key, which users verify with, is not there; docs/release.md says how to make it"
  done
}

# signing_key puts the secret key and its public one into the work directory, which nobody else can read.
signing_key() {
  if [[ -n $snapshot ]]; then
    "$minisign" -G -W -p "$work/key.pub" -s "$work/key" >/dev/null
    return
  fi
  (umask 077 && printf '%s\n' "$RELEASE_SIGNING_KEY" >"$work/key")
  "$minisign" -R -s "$work/key" -p "$work/key.pub" >/dev/null
  # Users have the one that is committed. The first line is a comment.
  [[ $(sed -n 2p "$work/key.pub") == "$(sed -n 2p "$public_key")" ]] || die "RELEASE_SIGNING_KEY is not the key of $public_key"
}

# config is goreleaser's, with the targets that were asked for.
config() {
  [[ -n ${TARGETS:-} ]] || {
    cat .goreleaser.yaml
    return
  }
  local target wanted=" $TARGETS "
  while IFS= read -r line; do
    target=$(sed -n 's/^      - \([a-z]*_[a-z0-9]*\)$/\1/p' <<<"$line")
    [[ -n $target && $wanted != *" $target "* ]] || printf '%s\n' "$line"
  done <.goreleaser.yaml
}

# list prints the digests of what is in dist/, and of the binary that each archive holds. The binary's name there is that
# of the file that the archive unpacks to.
list() {
  local file member
  for file in *.tar.gz *.cdx.json *_image.tar *_image.json; do
    # Without both of its platforms there is no image.
    [[ -f $file ]] || continue
    printf '%s  %s\n' "$(sha256 "$file")" "$file"
  done
  for file in *.tar.gz; do
    member=${file%.tar.gz}/$name
    printf '%s  %s\n' "$(tar -xOzf "$file" "$member" | sha256 -)" "$member"
  done
}

# provenance prints an in-toto statement with SLSA's predicate: which source and which build made the files of SHA256SUMS.
# What goes into it has no character that JSON would escape. It has no times, so that building again gives it again.
provenance() {
  local digest file separator='' builder="$source_url/blob/main/docs/release.md#by-hand"
  [[ -z ${GITHUB_WORKFLOW_REF:-} ]] || builder="${GITHUB_SERVER_URL:-}/$GITHUB_WORKFLOW_REF"
  printf '{\n  "_type": "https://in-toto.io/Statement/v1",\n  "subject": ['
  while read -r digest file; do
    printf '%s\n    {"name": "%s", "digest": {"sha256": "%s"}}' "$separator" "$file" "$digest"
    separator=,
  done <SHA256SUMS
  cat <<JSON

  ],
  "predicateType": "https://slsa.dev/provenance/v1",
  "predicate": {
    "buildDefinition": {
      "buildType": "$source_url/blob/main/docs/release.md",
      "externalParameters": {"version": "$VERSION", "snapshot": $([[ -n $snapshot ]] && echo true || echo false)},
      "internalParameters": {"go": "$(go env GOVERSION)"},
      "resolvedDependencies": [{"uri": "git+$source_url", "digest": {"gitCommit": "${commit%-dirty}"}}]
    },
    "runDetails": {"builder": {"id": "$builder"}}
  }
}
JSON
}

[[ -n $snapshot ]] || releasable
goreleaser=$(scripts/tool.sh goreleaser)
minisign=$(scripts/tool.sh minisign)
cyclonedx=$(scripts/tool.sh cyclonedx-gomod)
# goreleaser finds it by its name.
export PATH="${cyclonedx%/*}:$PATH"
signing_key
# Nothing that builds needs the key, so nothing that builds sees it.
unset RELEASE_SIGNING_KEY

note "making $VERSION${snapshot:+, a snapshot} ($commit)"
rm -rf dist
config >"$work/goreleaser.yaml"
"$goreleaser" release --config "$work/goreleaser.yaml" ${snapshot:+--snapshot} --skip=publish,announce >"$work/log" 2>&1 || {
  cat "$work/log" >&2
  die 'goreleaser failed'
}
mv dist/goreleaser/*.tar.gz dist/goreleaser/*.cdx.json dist/
rm -rf dist/goreleaser
notes >dist/notes.md
if [[ -z ${TARGETS:-} || " $TARGETS " == *' linux_amd64 '* && " $TARGETS " == *' linux_arm64 '* ]]; then
  scripts/image.sh build
fi

cd dist
list >SHA256SUMS
provenance >provenance.json
cp "$work/key.pub" release.pub
for file in SHA256SUMS provenance.json; do
  "$minisign" -S -s "$work/key" -t "$name $VERSION $file" -m "$file" >/dev/null
done
# The public key is the committed one, or the signing key would have been refused.
"$minisign" -V -q -p release.pub -m SHA256SUMS
cat SHA256SUMS
note 'it is in dist/'

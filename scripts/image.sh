#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# Makes the container image from the archives in dist/, and publishes it with its signatures and bills of materials.
#
#   scripts/image.sh build                    an OCI layout and the image's index, in dist/; scripts/release.sh calls this
#   scripts/image.sh push REPOSITORY          push what SHA256SUMS lists, signed with the key in IMAGE_SIGNING_KEY
#   SNAPSHOT=1 scripts/image.sh push …        the same, signed with a key that is thrown away
#
# DIST is another directory than the checkout's dist/.
# It logs in nowhere: crane and cosign take what `docker login` or `crane auth login` has left. docs/release.md has more.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
. "$root/scripts/lib/common.sh"
. "$root/scripts/lib/release.sh"
. "$root/scripts/lib/signing.sh"
cd "$root"

readonly public_key=docs/image.pub
version=$(scripts/build.sh version)
dist=${DIST:-dist}
readonly image=$dist/${name}_${version}_image

build() {
  local tool commit architecture
  for architecture in amd64 arm64; do
    [[ -f $dist/${name}_${version}_linux_$architecture.tar.gz ]] || die "$dist has no linux_$architecture of $version; make release makes it"
  done
  tool=$(scripts/tool.sh image)
  commit=$(scripts/build.sh commit)
  "$tool" -dist "$dist" -version "$version" -commit "$commit" -created "$(scripts/build.sh date)" -source "$source_url"
  note "sha256:$(sha256 "$image.json") is in $image.tar"
}

# listed holds what is pushed against the release's list, before a key signs it.
listed() {
  local file digest
  for file in "$image.tar" "$image.json" "$dist/${name}_${version}"_linux_{amd64,arm64}.cdx.json; do
    [[ -f $file ]] || die "there is no $file; make release makes it"
    digest=$(sha256 "$file")
    grep -qxF "$digest  ${file##*/}" "$dist/SHA256SUMS" || die "$file is not what $dist/SHA256SUMS lists; make the release again"
  done
}

# signing_key leaves the secret key in IMAGE_SIGNING_KEY, and its public one in IMAGE_PUB_OUT, or beside the release's files.
signing_key() {
  if [[ -n $snapshot ]]; then
    (cd "$work" && "$cosign" generate-key-pair) 2>"$work/log" || die "cosign makes no key: $(<"$work/log")"
    IMAGE_SIGNING_KEY=$(<"$work/cosign.key")
  fi
  export IMAGE_SIGNING_KEY
  [[ -n $snapshot || -f $public_key ]] || die "$public_key, which users verify with, is not there; docs/release.md says how to make it"
  [[ -n ${IMAGE_SIGNING_KEY:-} ]] || die 'IMAGE_SIGNING_KEY does not hold the secret key; docs/release.md says how to make one'
  "$cosign" public-key --key env://IMAGE_SIGNING_KEY >"$work/image.pub"
  # Users have the one that is committed.
  [[ -n $snapshot ]] || cmp -s "$work/image.pub" "$public_key" || die "IMAGE_SIGNING_KEY is not the key of $public_key"
  cp "$work/image.pub" "${IMAGE_PUB_OUT:-$dist/image.pub}"
}

push() {
  local repository=$1 digest reference architecture platform
  crane=$(scripts/tool.sh crane)
  cosign=$(scripts/tool.sh cosign)
  # The key is guarded by where it is kept, not by a password beside it.
  export COSIGN_PASSWORD=''
  work=$(mktemp -d "${TMPDIR:-/tmp}/apic-image.XXXXXX")
  trap 'rm -rf -- "$work"' EXIT
  listed
  signing_key
  local sign
  offline_signing "$work"
  sign+=(--key env://IMAGE_SIGNING_KEY)

  mkdir "$work/layout"
  tar -xf "$image.tar" -C "$work/layout"
  digest=sha256:$(sha256 "$image.json")
  reference=$("$crane" push "$work/layout" "$repository:$version")
  [[ ${reference##*@} == "$digest" ]] || die "$repository has $reference, and the release's image is $digest"
  # Each platform's image too, for those who pin that one.
  "$cosign" sign "${sign[@]}" --recursive "$repository@$digest" >&2
  for architecture in amd64 arm64; do
    platform=$("$crane" digest --platform "linux/$architecture" "$repository@$digest")
    "$cosign" attest "${sign[@]}" --type cyclonedx --predicate "$dist/${name}_${version}_linux_$architecture.cdx.json" \
      "$repository@$platform" >&2
  done
  printf '%s\n' "$repository@$digest"
}

case ${1:-} in
  build) build ;;
  push) push "${2:?which repository, as in registry.example/vault-plugin-secrets-apic}" ;;
  *) die 'build or push?' ;;
esac

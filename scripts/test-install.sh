#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# Runs the commands of docs/install.md as written, on a snapshot release's files, a real Vault server and a simulated API
# Connect. On the way it changes one byte of the list, of the archive and of the placed binary, and signs the list
# with another key, and wants the step that should to refuse each.
#
# RELEASE_DIST names the files of a release of HEAD's tag, to take in place of a snapshot's.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
. "$root/scripts/lib/common.sh"
. "$root/scripts/lib/stack.sh"
. "$root/scripts/lib/page.sh"

# Only this machine's part of a release is needed.
target=$(go env GOOS)_$(go env GOARCH)
release_files "$target"
command -v minisign >/dev/null || pinned_minisign=$("$root/scripts/tool.sh" minisign)

page_start
[[ -z ${pinned_minisign:-} ]] || ln -s "$pinned_minisign" bin/minisign
mkdir download
cp apikey.json download/
cd download
cp "$dist"/*.tar.gz "$dist"/SHA256SUMS* "$dist"/release.pub .

run VERSION=
VERSION=$("$root/scripts/build.sh" version) PLATFORM=$target
archive=vault-plugin-secrets-apic_${VERSION}_$PLATFORM

note 'one byte of the list'
cp SHA256SUMS kept && flip SHA256SUMS
refused 'verification failed|invalid signature' 'minisign -V'
mv kept SHA256SUMS

note 'a list that somebody else signed'
cp SHA256SUMS.minisig kept
minisign -G -W -p other.pub -s other.key >/dev/null
minisign -S -s other.key -m SHA256SUMS >/dev/null
refused 'verification failed|invalid signature|key id' 'minisign -V'
mv kept SHA256SUMS.minisig

note 'one byte of the archive'
cp "$archive.tar.gz" kept && flip "$archive.tar.gz"
refused 'did NOT match' 'tar -xzf "vault'
mv kept "$archive.tar.gz"

run 'minisign -V' 'tar -xzf "vault' 'install -m 0755' 'vault plugin register'

note 'one byte of the placed binary'
cp "$PLUGIN_DIR/vault-plugin-secrets-apic-$VERSION" kept && flip "$PLUGIN_DIR/vault-plugin-secrets-apic-$VERSION"
refused 'checksums did not match' 'vault secrets enable'
mv kept "$PLUGIN_DIR/vault-plugin-secrets-apic-$VERSION"

run 'vault secrets enable' 'vault write apic/config' 'APP_TOKEN='
[[ $(vault read -field=version apic/info) == "$VERSION" ]] || die "FAILED: it is not $VERSION that runs"
VAULT_TOKEN=$APP_TOKEN vault read -field=token apic/token/us-south | sed "s/^/Authorization: Bearer /" | curl -fsS -H @- "$SIM/v1/me" >/dev/null ||
  die 'FAILED: API Connect refused the token'
note 'the page holds, and each change was caught'

#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# Runs docs/install.md's commands for the container image as written: a snapshot's image is pushed to a registry on loopback,
# verified, pulled, and installs its plugin into a real Vault server, which reads a token from a simulated API Connect.
# No container runtime is needed: the program is run out of the image's file system. On the way a registry changes a byte
# of the layer and of the index, and somebody else pushes and signs, and the step that should refuses each.
#
# RELEASE_DIST names the files of a release of HEAD's tag, to take in place of a snapshot's. It takes python3.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
. "$root/scripts/lib/common.sh"
. "$root/scripts/lib/stack.sh"
. "$root/scripts/lib/page.sh"
. "$root/scripts/lib/signing.sh"

target=$(go env GOOS)_$(go env GOARCH)
[[ $target == linux_amd64 || $target == linux_arm64 ]] || die "the image is for Linux on amd64 and arm64, and this is $target"
release_files 'linux_amd64 linux_arm64'
# The stack's home is another, and a tool is not built anew for that.
export XDG_CACHE_HOME=${XDG_CACHE_HOME:-$HOME/.cache}
tools=()
for tool in minisign crane cosign; do
  tools+=("$("$root/scripts/tool.sh" "$tool")")
done

page_start
ln -s "${tools[@]}" bin/

stack_spawn registry.log crane registry serve --address 127.0.0.1:0 --disk "$(mkdir blobs && echo "$stack_dir/blobs")"
stack_until "$stack_pid" grep -q 'serving on port' registry.log || stack_fail 'the registry did not start' registry.log
registry=127.0.0.1:$(sed -n 's/.*serving on port \([0-9]*\).*/\1/p' registry.log)
repository=vault-plugin-secrets-apic
step 'The release is pushed and signed.'
pushed=$(DIST=$dist SNAPSHOT=1 IMAGE_PUB_OUT=$PWD/image.pub "$root/scripts/image.sh" push "$registry/$repository")
tell "$pushed"

# tamper serves the registry with one byte of this digest's content changed, at the address in tampering_registry.
tamper() {
  rm -f "$stack_dir/tampering.port"
  stack_spawn "$stack_dir/tampering.log" python3 "$root/scripts/lib/tampering_registry.py" "http://$registry" "$1" "$stack_dir/tampering.port"
  stack_until "$stack_pid" test -s "$stack_dir/tampering.port" || stack_fail 'the tampering registry did not start' "$stack_dir/tampering.log"
  tampering_registry=127.0.0.1:$(<"$stack_dir/tampering.port")
}

mkdir download
cp apikey.json download/
cd download
cp "$dist"/SHA256SUMS* "$dist"/release.pub ../image.pub .

run VERSION=
# shellcheck disable=SC2034 # The page's commands read them.
VERSION=$("$root/scripts/build.sh" version) PLATFORM=$target IMAGE=$registry/$repository
run 'minisign -V' 'DIGEST='
released=$DIGEST
[[ $IMAGE@$released == "$pushed" ]] || die "FAILED: the list has $released, and $pushed was pushed"

note 'somebody else pushes another image, and then signs it with another key'
tar -cf other.tar SHA256SUMS
DIGEST=$(crane append --new_tag "$IMAGE:$VERSION" --new_layer other.tar 2>/dev/null)
DIGEST=${DIGEST##*@}
[[ $DIGEST != "$released" ]] || die 'FAILED: the other image has the digest of the released one'
refused 'no signatures found' 'cosign verify '
offline_signing .
export COSIGN_PASSWORD=''
cosign generate-key-pair --output-key-prefix other 2>key.log || die "cosign makes no key: $(<key.log)"
cosign sign "${sign[@]}" --key other.key "$IMAGE@$DIGEST" 2>sign.log || die "cosign does not sign: $(<sign.log)"
refused 'no matching signatures|could not verify|invalid signature' 'cosign verify '
DIGEST=$released

run 'cosign verify ' 'cosign verify-attestation'
# The payload is the statement in base64, whose predicate is the bill of materials.
sed 's/.*"payload":"\([^"]*\)".*/\1/' sbom.intoto.jsonl | base64 -d | grep -q '"bomFormat":"CycloneDX"' ||
  die 'FAILED: what is attached is no bill of materials'

note 'a registry that changes one byte of the index'
tamper "$released"
IMAGE=$tampering_registry/$repository
refused 'digest' 'crane export'
rm -rf image image.tar

note 'a registry that changes one byte of the plugin'
layer=$(crane manifest --platform="${target/_//}" "$registry/$repository@$released" | sed 's/.*"digest":"\([^"]*\)".*/\1/')
tamper "$layer"
IMAGE=$tampering_registry/$repository
refused 'error verifying sha256|digest' 'crane export'
rm -rf image image.tar
IMAGE=$registry/$repository

run 'crane export'
[[ $(cd image && find . -type f | sort | tr '\n' ' ') == './etc/ssl/certs/ca-certificates.crt ./vault-plugin-secrets-apic ' ]] ||
  die 'FAILED: the image has other files than the plugin and the certificates'
installed=$PLUGIN_DIR/vault-plugin-secrets-apic-$VERSION
[[ $(stat -c %a "$installed") == 755 ]] || die "FAILED: $installed is not executable for everybody"
# The other platform's is not run here, and is the archive's too.
for architecture in amd64 arm64; do
  mkdir -p "other/$architecture"
  crane export --platform="linux/$architecture" "$IMAGE@$DIGEST" - | tar -xf - -C "other/$architecture" vault-plugin-secrets-apic
  grep -q "^$(sha256 "other/$architecture/vault-plugin-secrets-apic")  .*_linux_$architecture/vault-plugin-secrets-apic\$" SHA256SUMS ||
    die "FAILED: the image's binary for $architecture is not the archive's"
done
run 'vault plugin register'

note 'one byte of the installed binary'
cp "$installed" kept && flip "$installed"
refused 'checksums did not match' 'vault secrets enable'
image/vault-plugin-secrets-apic install "$PLUGIN_DIR" >/dev/null

run 'vault secrets enable' 'vault write apic/config' 'APP_TOKEN='
[[ $(vault read -field=version apic/info) == "$VERSION" ]] || die "FAILED: it is not $VERSION that runs"
VAULT_TOKEN=$APP_TOKEN vault read -field=token apic/token/us-south | sed "s/^/Authorization: Bearer /" | curl -fsS -H @- "$SIM/v1/me" >/dev/null ||
  die 'FAILED: API Connect refused the token'
note 'the same in a registry of your own, and one byte of the file that is carried there'
# shellcheck disable=SC2034 # The page's commands read it.
REGISTRY=$registry/own
run 'cosign save'
IMAGE=$REGISTRY/$repository
run 'cosign verify '
cp "$dist/vault-plugin-secrets-apic_${VERSION}_image.tar" .
REGISTRY=$registry/inside
flip "vault-plugin-secrets-apic_${VERSION}_image.tar"
refused 'did NOT match' 'crane push'
cp "$dist/vault-plugin-secrets-apic_${VERSION}_image.tar" .
run 'crane push'
[[ $(crane digest "$REGISTRY/$repository:$VERSION") == "$released" ]] || die 'FAILED: the carried image is another'
note 'the page holds, and each change was caught'

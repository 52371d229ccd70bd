#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# How cosign signs here. It is sourced, not run.
set -euo pipefail

# offline_signing fills the array sign, for a signature that takes nothing but the key, here and where it is verified: no
# transparency log, no timestamp and no roots to fetch. Two small files go into the directory.
offline_signing() {
  printf '{"mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json"}\n' >"$1/signing.json"
  printf '{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}\n' >"$1/root.json"
  # shellcheck disable=SC2034
  sign=(--yes --signing-config "$1/signing.json" --trusted-root "$1/root.json")
}

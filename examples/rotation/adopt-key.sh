#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# Takes a downloaded apikey.json into Vault and has Vault replace the key at once, and again on a schedule. After it the
# file holds a key that no longer exists.
#
#   adopt-key.sh NAME FILE [PERIOD] [FIELD=VALUE...]
set -euo pipefail

name=${1:?usage: adopt-key.sh NAME FILE [PERIOD] [FIELD=VALUE...]}
file=${2:?usage: adopt-key.sh NAME FILE [PERIOD] [FIELD=VALUE...]}
period=${3:-720h}
mount=${APIC_MOUNT:-apic}

vault write "$mount/config/$name" api_key=@"$file" rotation_period="$period" "${@:4}"
vault write -f "$mount/config/$name/rotate"
rm -- "$file"

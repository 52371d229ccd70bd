#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# Takes a downloaded apikey.json into Vault and has Vault replace the key at once, and again on a schedule. The key in the
# file gets no grace period: nobody is to use it any more.
#
#   adopt-key.sh NAME FILE [PERIOD] [FIELD=VALUE...]
set -euo pipefail

name=${1:?usage: adopt-key.sh NAME FILE [PERIOD] [FIELD=VALUE...]}
file=${2:?usage: adopt-key.sh NAME FILE [PERIOD] [FIELD=VALUE...]}
period=${3:-720h}
mount=${APIC_MOUNT:-apic}

vault write "$mount/config/$name" api_key=@"$file" rotation_period="$period" "${@:4}"
vault write "$mount/config/$name/rotate" grace_period=0s
rm -- "$file"

#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# What the scripts that make a release have in common. It is sourced, not run.
set -euo pipefail

# shellcheck disable=SC2034 # They are for the scripts that source this.
readonly name=vault-plugin-secrets-apic source_url=https://github.com/apic-vault/vault-plugin-secrets-apic

# Not empty for what is signed with a key that is thrown away.
snapshot=${SNAPSHOT:-}
[[ $snapshot != 0 ]] || snapshot=''

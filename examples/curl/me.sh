#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# Asks API Connect who it is.
set -euo pipefail

path=apic/token/us-south

api_url=$(vault read -field=api_url "$path")
# The token passes through pipes alone: it is on no command line, in no file and in no variable.
vault read -field=token "$path" | sed 's/^/Authorization: Bearer /' | curl -fsS -H @- "$api_url/api/me"
echo

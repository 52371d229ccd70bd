#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# Asks API Connect who it is, again and again, with the APIC_TOKEN and APIC_API_URL it was started with.
set -euo pipefail

trap 'echo "stopped, for a newer token or for good"; exit 0' TERM

while true; do
  # On standard input, because every process of the machine can see the arguments of a command.
  curl -fsS -H @- "$APIC_API_URL/api/me" <<<"Authorization: Bearer $APIC_TOKEN"
  echo
  # Bash acts on a signal between commands, but wakes from `wait` for one.
  sleep 2 &
  wait $!
done

#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# Shows the whole of it, with the commands a user would type: an API key for each token service goes into Vault, tokens
# come out, and the key does not. It needs Go, git and curl, nothing of IBM's and no Vault, and leaves nothing behind.
# It succeeds only if every step did what it says.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
. "$root/scripts/lib/common.sh"
. "$root/scripts/lib/stack.sh"

command -v curl >/dev/null || die 'no curl here, which the demo calls the simulation with; install curl (Debian: curl)'

# The single quotes are the point: what is shown is what is run, and the shell fills in the variables as it would for
# the reader.
# shellcheck disable=SC2016
main() {
  local config
  stack_start

  cat <<EOF

$(vault version)
    in memory, at $VAULT_ADDR
A simulated API Connect, which checks what it is sent and signs real JWTs that open nothing
    at $SIM

An operator sets it up, once.
EOF
  try 'vault audit enable file file_path="$PWD/audit.log"'
  stack_mount

  step 'No policy lets anyone read the key or the client secret back. A read returns the other settings.'
  try 'vault read apic/config/us-south'
  [[ $answer == *"$SIM/apikey"* ]] || die 'FAILED: the config does not say where its key goes'
  try 'vault read apic/config/saas'
  [[ $answer == *"$SIM/api/token"* ]] || die 'FAILED: the config does not say where its key goes'

  step 'An application reads a token. All readers share it, and it is replaced ahead of its expiry. (This one is simulated.)'
  try 'vault read apic/token/us-south'

  step 'API Connect accepts the token, and those of the other two services.'
  try 'vault read -field=token apic/token/us-south | sed "s/^/Authorization: Bearer /" | curl -fsS -H @- "$SIM/v1/me"'
  try 'vault read -field=token apic/token/reserved | sed "s/^/Authorization: Bearer /" | curl -fsS -H @- "$SIM/v1/me"'
  try 'vault read -field=token apic/token/saas | sed "s/^/Authorization: Bearer /" | curl -fsS -H @- "$SIM/api/me"'

  step 'It refuses a request without a token.'
  try_refused 401 'curl -fsS "$SIM/v1/me"'

  step 'Vault replaces the key itself, and nobody else sees the new one. The downloaded key stays valid for five minutes.'
  try 'vault write -f apic/config/us-south/rotate'
  try 'vault read apic/status/us-south'
  [[ $answer == *retired_api_keys* ]] || die 'FAILED: the status does not tell until when the replaced key lives'
  try 'curl -fsS "$SIM/_sim/counts"'
  [[ $answer == *'"keys_created":2,"keys_deleted":0'* ]] || die 'FAILED: not one key was created, beside that of saas'

  step 'A leaked key must be deleted at once. (In the first half minute after its start, the engine deletes nothing.)'
  try 'vault write apic/config/us-south/rotate grace_period=0s'
  try_until '"keys_created":3,"keys_deleted":1' 'curl -fsS "$SIM/_sim/counts"'
  try 'vault read -field=token apic/token/us-south | sed "s/^/Authorization: Bearer /" | curl -fsS -H @- "$SIM/v1/me"'

  step 'A key of the platform lives five minutes and works once. Vault makes each next one itself: 21 tokens of eight hours
last a week. Here a token lives four seconds, so that you see as many in a minute.'
  try 'curl -fsS -X PUT -d "{\"ttl\":\"4s\"}" "$SIM/_sim/token_ttl"'
  try 'vault write -f apic/config/saas/rotate'
  try_until '"keys_created":2[5-9]' 'curl -fsS "$SIM/_sim/counts"'
  try 'vault read -field=token apic/token/saas | sed "s/^/Authorization: Bearer /" | curl -fsS -H @- "$SIM/api/me"'
  try 'vault read apic/status/saas'
  [[ $answer == *can_be_away_until* ]] || die 'FAILED: the status does not tell how long Vault could be away'

  step 'The key that it started with no longer works.'
  try_refused 'refused the API key' 'vault write apic/config/again api_key=@saas.json credentials=@credentials.json token_url="$SIM/api/token"'

  step 'No log has a key or the client secret in it. How many lines of the audit log and of the server log have one?'
  # From a file, because the arguments of a command can be seen by every process of the machine.
  (umask 077 && printf '%s\n' "${SECRETS[@]}" >secrets)
  try 'grep -c -F -f secrets audit.log vault.log || test $? = 1'
  [[ $answer == $'audit.log:0\nvault.log:0' ]] || die 'FAILED: a secret is in a log'
  # An audit log that had missed the writes would have proved nothing.
  for config in us-south reserved saas; do
    grep -q '"path":"apic/config/'"$config"'"' audit.log || die "FAILED: the write of $config is not in the audit log"
  done

  step 'That is all. Vault and the simulation are stopped now, and nothing is left behind.'
}

main

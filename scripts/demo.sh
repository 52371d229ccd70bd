#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# Shows the whole of it, with the commands a user would type: an API key goes into Vault, tokens come out, and the key
# does not. It needs Go and git, nothing of IBM's and no Vault, and leaves nothing behind. It succeeds only if every step
# did what it says.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
. "$root/scripts/lib/common.sh"
. "$root/scripts/lib/stack.sh"

# get does what `curl -fsS` does for a plain http URL, for a machine that has none.
get() {
  local url=$1 header=${2:-} line status host path
  [[ $url =~ ^http://([^/]+)(/.*)$ ]] || return 3
  host=${BASH_REMATCH[1]} path=${BASH_REMATCH[2]}
  exec 3<>"/dev/tcp/${host%:*}/${host##*:}"
  printf 'GET %s HTTP/1.0\r\nHost: %s\r\n%s\r\n' "$path" "$host" "${header:+$header$'\r\n'}" >&3
  IFS=' ' read -r _ status _ <&3
  while IFS= read -r line <&3 && [[ $line != $'\r' ]]; do :; done
  if [[ $status != 2* ]]; then
    printf 'The requested URL returned error: %s\n' "$status"
    return 22
  fi
  cat <&3
}

# The single quotes are the point: what is shown is what is run, and the shell fills in the variables as it would for
# the reader.
# shellcheck disable=SC2016
main() {
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

  step 'Nobody gets the key back, with whatever policy: a read answers the rest.'
  try 'vault read apic/config/us-south'
  [[ $answer == *"$SIM/apikey"* ]] || die 'FAILED: the config does not say where its key goes'

  step 'An application reads a token. All readers share it, and it is replaced ahead of its expiry. (This one is simulated.)'
  try 'vault read apic/token/us-south'

  step 'API Connect takes the token.'
  if command -v curl >/dev/null; then
    curl='curl -fsS'
    header='-H '
  else
    printf '    (There is no curl here, so that this script does what curl would.)\n'
    curl='get'
    header=''
  fi
  if [[ $curl == get ]]; then
    try 'get "$SIM/v1/me" "Authorization: Bearer $(vault read -field=token apic/token/us-south)"'
  else
    try 'curl -fsS -H "Authorization: Bearer $(vault read -field=token apic/token/us-south)" "$SIM/v1/me"'
  fi

  step 'Without one it refuses.'
  try_refused 401 "$curl"' "$SIM/v1/me"'
}

main

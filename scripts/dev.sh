#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# The demo's Vault and simulated API Connect, set up and left up to be played with from another shell, until Ctrl-C.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
. "$root/scripts/lib/common.sh"
. "$root/scripts/lib/stack.sh"

stack_start
stack_mount

cat <<EOF

Up. In another shell:

    export PATH='$stack_dir/bin':"\$PATH"
    export VAULT_ADDR='$VAULT_ADDR' VAULT_TOKEN='$VAULT_TOKEN'
    export SIM='$SIM'
    vault read apic/token/us-south

The configs reserved and saas are for the other two token services. The simulated keys, client
credentials and logs are in $stack_dir. After a change of the code, start this again.
Ctrl-C stops it all.
EOF

# Here Ctrl-C is how it ends and no failure.
trap 'exit 0' INT
wait "$stack_vault_pid" || true
stack_fail 'Vault has ended by itself' vault.log

#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# A Vault server with the plugin in it and a simulated API Connect, in memory and on loopback, for demo.sh and dev.sh.
# It is sourced, not run.
#
# stack_start builds and starts both and leaves the shell in a working directory of its own, with `vault` and the plugin
# on PATH, VAULT_ADDR and VAULT_TOKEN set for the new server, SIM the simulation's URL, and SECRETS the API keys and the
# client secret it accepts. stack_mount then registers and mounts the plugin, and writes one config of each token
# service. Whatever way the script ends, what it started is stopped and the directory removed.
set -euo pipefail

stack_dir=''
stack_pids=()
stack_vault_pid=''
SIM='' PLUGIN_VERSION='' SECRETS=()

# stack_spawn starts a command in the background, with its output in a file, and leaves its process id in stack_pid.
# Job control gives it a process group of its own: the Ctrl-C that ends a script then does not reach it before the
# script stops it in its turn, and a plugin that outlives its Vault can still be found.
stack_spawn() {
  local log=$1
  shift
  set -m
  "$@" >"$log" 2>&1 </dev/null &
  stack_pid=$!
  set +m
  stack_pids+=("$stack_pid")
}

# stack_until runs a command until it succeeds, for half a minute at most, and gives up at once when the process that
# would make it succeed is gone.
stack_until() {
  local pid=$1 deadline=$((SECONDS + 30))
  shift
  until "$@" >/dev/null 2>&1; do
    if ! kill -0 "$pid" 2>/dev/null || ((SECONDS >= deadline)); then
      return 1
    fi
    sleep 0.1
  done
}

# stack_end stops one process, gently if it lets itself, and then whatever is left of its group.
stack_end() {
  local pid=$1 deadline=$((SECONDS + 10))
  kill -TERM "$pid" 2>/dev/null || true
  while kill -0 "$pid" 2>/dev/null && ((SECONDS < deadline)); do
    sleep 0.1
  done
  kill -KILL -- "-$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}

stack_stop() {
  local status=$? i
  # A second Ctrl-C must not leave half of it running.
  trap '' INT TERM HUP
  set +e
  for ((i = ${#stack_pids[@]} - 1; i >= 0; i--)); do
    stack_end "${stack_pids[i]}"
  done
  if [[ -n $stack_dir ]]; then
    cd /
    rm -rf -- "$stack_dir"
  fi
  exit "$status"
}

# stack_fail ends the script with the last lines of a log, which hold the reason as a rule.
stack_fail() {
  tail -n 20 -- "$2" >&2
  die "$1"
}

# stack_vault_up asks the server only once it has said that it is up: until then it may be somebody else who has its port.
stack_vault_up() { grep -q '^Root Token:' vault.log && vault token lookup; }

# stack_vault starts the Vault server on a free port. Vault can listen on port 0, but tells nobody which port that gave
# it, so the only sure test of a port is to try it, and to try another when somebody else has it.
stack_vault() {
  local attempt port
  for ((attempt = 0; attempt < 20; attempt++)); do
    # Below the range that systems take outgoing connections' ports from.
    port=$((20000 + RANDOM % 12000))
    VAULT_ADDR="http://127.0.0.1:$port"
    # The root token is in the environment and not on the command line, where every process of the machine could see it.
    VAULT_DEV_ROOT_TOKEN_ID=$VAULT_TOKEN stack_spawn vault.log \
      vault server -dev -dev-no-store-token -dev-listen-address="127.0.0.1:$port" -config=vault.hcl
    if stack_until "$stack_pid" stack_vault_up; then
      # shellcheck disable=SC2034 # dev.sh waits for it.
      stack_vault_pid=$stack_pid
      return
    fi
    stack_end "$stack_pid"
    # Its number may be somebody else's by the time this script ends.
    unset "stack_pids[$((${#stack_pids[@]} - 1))]"
    grep -q 'address already in use' vault.log || break
  done
  stack_fail 'Vault did not start' vault.log
}

# json_text answers a member of a JSON file that has one member to a line.
json_text() { sed -n 's/.*"'"$1"'"[[:space:]]*:[[:space:]]*"\([^"]*\)".*/\1/p' "$2"; }

stack_start() {
  local root server name secret
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
  trap stack_stop EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap 'exit 129' HUP

  "$root/scripts/build.sh"
  PLUGIN_VERSION=$("$root/scripts/build.sh" version)
  server=$("$root/scripts/vault.sh")

  # Physical, because Vault compares a plugin's path with its directory's after following links.
  stack_dir=$(cd "$(mktemp -d "${TMPDIR:-/tmp}/vault-apic.XXXXXX")" && pwd -P)
  cd "$stack_dir"
  mkdir bin plugins
  ln -s "$server" bin/vault
  cp "$root/bin/vault-plugin-secrets-apic" plugins/
  cp "$root/bin/apic-sim" bin/
  printf 'plugin_directory = "%s"\n' "$stack_dir/plugins" >vault.hcl

  # Nothing of the caller's Vault may reach this one, nor this one's token the caller's home.
  for name in "${!VAULT_@}"; do
    [[ $name == VAULT_LICENSE* ]] || unset "$name"
  done
  export PATH="$stack_dir/bin:$PATH" HOME="$stack_dir" VAULT_ADDR VAULT_TOKEN SIM PLUGIN_VERSION
  # curl, unlike Vault, would ask a proxy for loopback too.
  export no_proxy=127.0.0.1,localhost NO_PROXY=127.0.0.1,localhost
  VAULT_TOKEN=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')

  stack_spawn sim.log apic-sim -listen 127.0.0.1:0 -apikey-file apikey.json -apikey-file reserved.json \
    -single-use-file saas.json -credentials-file credentials.json -ready-file sim.url -token-ttl 1h
  stack_until "$stack_pid" test -s sim.url || stack_fail 'the simulated API Connect did not start' sim.log
  SIM=$(cat sim.url)
  for name in apikey reserved saas; do
    SECRETS+=("$(json_text apikey "$name.json")")
  done
  SECRETS+=("$(json_text client_secret credentials.json)")
  for secret in "${SECRETS[@]}"; do
    # Without a secret the search for it in what is printed would find nothing, always.
    [[ -n $secret ]] || die 'a simulated apikey.json or credentials.json holds no secret'
  done

  stack_vault
}

# step says what comes next and why.
step() { printf '\n%s\n' "$*"; }

# tell prints what a command answered, unless a secret is in it, which nothing here may ever print.
tell() {
  local secret
  for secret in "${SECRETS[@]}"; do
    [[ $1 != *"$secret"* ]] || die 'FAILED: an API key or the client secret is in what that answered'
  done
  [[ -z $1 ]] || printf '%s\n' "$1" | sed 's/^/    /'
}

# try shows a command as a user would type it, runs exactly that, and prints what came back, which it leaves in answer.
try() {
  local status=0
  printf '\n    $ %s\n' "$1"
  answer=$(eval "$1" 2>&1 </dev/null) || status=$?
  tell "$answer"
  ((status == 0)) || die "FAILED with status $status"
}

# try_until is try for what takes its time: it shows the command once and runs it until its answer holds this pattern,
# for three minutes at most.
try_until() {
  local deadline=$((SECONDS + 180))
  printf '\n    $ %s\n' "$2"
  # shellcheck disable=SC2053 # It is a pattern.
  until answer=$(eval "$2" 2>&1 </dev/null) && [[ $answer == *$1* ]]; do
    ((SECONDS < deadline)) || break
    sleep 0.5
  done
  tell "$answer"
  # shellcheck disable=SC2053
  [[ $answer == *$1* ]] || die "FAILED: that did not get to be $1"
}

# try_refused is for a command that must not succeed, and must say this while it fails.
try_refused() {
  printf '\n    $ %s\n' "$2"
  if answer=$(eval "$2" 2>&1 </dev/null); then
    tell "$answer"
    die 'FAILED: that should have been refused'
  fi
  tell "$answer"
  [[ $answer == *"$1"* ]] || die "FAILED: that should have been refused with $1"
}

# stack_mount puts the plugin into Vault and gives it a key for each token service. The single quotes are the point: what
# is shown is what is run, and the shell fills in the variables as it would for the reader.
# shellcheck disable=SC2016
stack_mount() {
  local digest='sha256sum'
  command -v sha256sum >/dev/null || digest='shasum -a 256'

  step "Vault runs a plugin only if its digest is in the catalogue, so that a file put in its place never starts."
  try 'vault plugin register -version='"$PLUGIN_VERSION"' \
        -sha256="$('"$digest"' plugins/vault-plugin-secrets-apic | cut -d " " -f 1)" \
        secret vault-plugin-secrets-apic'

  step 'A mount is one instance of the engine, with its own configs and policies.'
  try 'vault secrets enable -path=apic vault-plugin-secrets-apic'

  step 'The key goes in once: apikey.json is what the console downloads. Vault exchanges it for a token before it stores it.'
  try 'vault write apic/config/us-south api_key=@apikey.json token_url="$SIM/apikey" api_url="$SIM" iam_url="$SIM"'

  step 'That was for API Connect on IBM Cloud. A Reserved Instance accepts the tokens of IBM Cloud IAM.'
  try 'vault write apic/config/reserved token_service=iam api_key=@reserved.json iam_url="$SIM" api_url="$SIM"'

  step 'API Connect SaaS, or one of your own, wants client credentials too: credentials.json is what it offers for download.'
  try 'vault write apic/config/saas api_key=@saas.json credentials=@credentials.json token_url="$SIM/api/token"'
}

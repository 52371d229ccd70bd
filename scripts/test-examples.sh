#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# Runs every example that can run here and then goes through the table of examples/README.md: which test ran, which was
# passed over, and why the rest was not executed. It fails if a test of the table failed, or if there is none of its name.
#
# VAULT_PROVIDER names a terraform-provider-vault of 5.8 or newer, to run examples/opentofu with as it stands.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
. "$root/scripts/lib/common.sh"
cd "$root"

# What takes minutes to build, and is therefore not for make test: a variable that a test asks for, and the tool.
readonly tools=(
  TOFU tofu
  OLD_VAULT_PROVIDER terraform-provider-vault
  ETCD etcd
  KUBE_APISERVER kube-apiserver
  KUBECTL kubectl
)

for ((i = 0; i < ${#tools[@]}; i += 2)); do
  path=$(scripts/tool.sh "${tools[i + 1]}")
  export "${tools[i]}=$path"
done
VAULT_SERVER=$(scripts/vault.sh)
export VAULT_SERVER
for package in examples/node test/ci; do
  npm ci --prefix "$package" --prefer-offline --no-audit --no-fund >&2 || note "npm ci failed in $package; passing over what needs it"
done
for tool in gitlab-ci-local tekton-lint; do
  path=$root/test/ci/node_modules/.bin/$tool
  # In capitals, with underscores: GITLAB_CI_LOCAL.
  variable=${tool^^}
  [[ ! -x $path ]] || export "${variable//-/_}=$path"
done

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
mapfile -t packages < <(grep -rl --include='*_test.go' '^func TestExample' . | xargs -n 1 dirname | sort -u)
go test -count=1 -v -timeout 20m -run '^TestExample' "${packages[@]}" 2>&1 | tee "$log" || status=$?

# outcome tells what go test said of a test. What a test logs stands below the last line that names it.
outcome() {
  case $(grep -m 1 -o -E -- "^--- (PASS|FAIL|SKIP): $1 " "$log") in
    *PASS*) printf 'ran' ;;
    *SKIP*) awk -v test="$1" '/^=== / { now = $3 } now == test && sub(/^    [^ :]+:[0-9]+: /, "") { said = $0 }
        END { printf "passed over: %s", said }' "$log" ;;
    *FAIL*)
      printf 'FAILED'
      return 1
      ;;
    *)
      printf 'there is no test %s' "$1"
      return 1
      ;;
  esac
}

trim() { sed 's/^ *//; s/ *$//' <<<"$1"; }

echo
while IFS='|' read -r _ tool example _ why _; do
  example=${example##*](} example=${example%)*}
  why=$(trim "$why")
  if [[ $why =~ ^\`(TestExample[A-Za-z_]+)\`(.*) ]]; then
    rest=${BASH_REMATCH[2]}
    why=$(outcome "${BASH_REMATCH[1]}") || status=1
    why+=$rest
  fi
  printf '%-18s %-30s %s\n' "$example" "$(trim "$tool")" "$why"
done < <(grep '^| .*](' examples/README.md)
exit "$status"

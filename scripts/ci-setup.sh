#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# Installs what the tests want beyond Go, make and git, on Debian or Ubuntu. What is there already stays as it is. If
# something is missing it needs root, and asks sudo when it is run by somebody else.
#
#   scripts/ci-setup.sh            install what is missing
#   scripts/ci-setup.sh missing    print the packages that it would install, one a line
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
. "$root/scripts/lib/common.sh"

has() { command -v "$1" >/dev/null; }

compiles() { printf '#include <stdlib.h>\nint main(void) { return 0; }\n' | gcc -x c -o /dev/null - 2>/dev/null; }

# missing prints the packages whose commands are not there.
missing() {
  # The race detector needs a C compiler, and is the one thing here that does.
  compiles || printf '%s\n' gcc libc6-dev
  # Prometheus and its promtool judge the metrics.
  { has promtool && has prometheus; } || echo prometheus
  # What the examples are for, each with its acceptance test.
  has curl || echo curl
  has jq || echo jq
  has node || echo nodejs
  has npm || echo npm
  /usr/bin/python3 -c 'import hvac, requests' 2>/dev/null || echo python3-hvac
  # 300 MB, and less than a minute.
  has ansible-playbook || echo ansible
}

mapfile -t packages < <(missing)
case ${1:-} in
  '') ;;
  missing)
    ((${#packages[@]} == 0)) || printf '%s\n' "${packages[@]}"
    exit
    ;;
  *) die "there is no '$1' to do" ;;
esac

if ((${#packages[@]} > 0)); then
  has apt-get || die "there is no apt-get; install what these Debian packages have: ${packages[*]}"
  note "installing ${packages[*]}"
  sudo=()
  ((EUID == 0)) || sudo=(sudo)
  "${sudo[@]}" apt-get update -q
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${packages[@]}"
fi
# The versions of the lock file, from npm's cache if it has them.
npm ci --prefix "$root/examples/node" --prefer-offline --no-audit --no-fund

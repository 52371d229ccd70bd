#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# Runs the demo and makes docs/demo.svg, the recording in the README, from its output. It needs what the demo needs, and
# Node.js.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
. "$root/scripts/lib/common.sh"

# Small enough for a phone on a slow network.
max_bytes=150000

command -v node >/dev/null || die 'no node here, which draws the recording; install Node.js (Debian: nodejs)'

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

note 'running the demo, which takes two minutes'
"$root/scripts/demo.sh" >"$work/demo.txt"
node "$root/scripts/lib/draw_demo.js" <"$work/demo.txt" >"$work/demo.svg"

# The demo fails if a key or the client secret is in its output, but it prints a JWT. Each of them has a part of 40
# characters or more, and nothing else in the picture has.
! grep -n -E '[[:alnum:]_-]{40}' "$work/demo.svg" >&2 || die 'FAILED: these lines hold what may be a key or a JWT'
bytes=$(wc -c <"$work/demo.svg")
((bytes <= max_bytes)) || die "FAILED: the recording has $bytes bytes, which is more than $max_bytes"

# Copied only now, so that a failure leaves the old picture in place.
cat "$work/demo.svg" >"$root/docs/demo.svg"
note "docs/demo.svg has $bytes bytes"

#!/usr/bin/env bash
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
#
# Everything that can be said against the source without running it. Every check runs, whatever an earlier one found.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
. "$root/scripts/lib/common.sh"
cd "$root"

failures=0

# check runs a command and notes its failure by name.
check() {
  local name=$1
  shift
  if ! "$@"; then
    note "FAILED: $name"
    failures=$((failures + 1))
  fi
}

formatted() {
  local files
  files=$(gofmt -l -- *.go cmd examples internal test tools) || return 1
  [[ -z $files ]] || {
    printf 'run make fmt: %s\n' "$files" >&2
    return 1
  }
}

# in_each_module runs a command in each Go module with code of this project, for ./... leaves the nested ones out.
in_each_module() {
  local module
  for module in . test/bench tools/image; do
    (cd "$module" && "$@") || return 1
  done
}

sources() { find . -name .git -prune -o -name node_modules -prune -o -path ./bin -prune -o -type f \( "$@" \) -print0; }

licensed() {
  local file missing=0
  while IFS= read -r -d '' file; do
    # Within the first five lines, for a build constraint, a "Code generated" line or a #! may come before it.
    if ! head -n 5 "$file" | grep -q '^\(//\|#\) SPDX-License-Identifier: MPL-2\.0$' ||
      ! head -n 5 "$file" | grep -q '^\(//\|#\) Copyright (c) The vault-plugin-secrets-apic authors$'; then
      printf 'no licence header: %s\n' "$file" >&2
      missing=1
    fi
  done < <(sources -name '*.go' -o -name '*.sh' -o -name '*.py' -o -name '*.js' -o -path ./.ci/run)
  return "$missing"
}

# glossary looks for the words of scripts/retired-words.txt, in identifiers too: camel case is taken apart.
glossary() {
  # shellcheck disable=SC2016 # The dollar signs are awk's.
  sources -name '*.go' -o -name '*.sh' -o -name '*.md' -o -path ./.ci/run |
    xargs -0 awk -F '\t' -v words=scripts/retired-words.txt '
      BEGIN {
        while ((getline < words) > 0) {
          if (/^#/ || NF < 2) continue
          if (sub(/^!/, "")) excepted[$1, $2] = 1
          else instead[$1] = $2
          known++
        }
        if (!known) {
          print "no words in " words > "/dev/stderr"
          exit found = 1
        }
      }
      {
        line = $0
        gsub(/[A-Z]/, " &", line)
        line = tolower(line)
        gsub(/[^a-z]+/, " ", line)
        line = " " line " "
        for (word in instead)
          if (index(line, " " word " ") && !((FILENAME, word) in excepted) && !((FILENAME, "*") in excepted)) {
            printf "%s:%d: \"%s\" is retired: %s\n", FILENAME, FNR, word, instead[word] > "/dev/stderr"
            found = 1
          }
      }
      END { exit found }'
}

shell_sound() { sources -name '*.sh' -o -path ./.ci/run | xargs -0 shellcheck -x -P SCRIPTDIR; }

python_sound() {
  # Compiled in memory, because py_compile leaves what it makes beside the source.
  sources -name '*.py' | xargs -0 python3 -c 'import sys
for name in sys.argv[1:]:
    compile(open(name, encoding="utf-8").read(), name, "exec")'
}

# One by one: node looks at no more than the first file.
node_sound() { sources -name '*.js' | xargs -0 -n 1 node --check; }

# Its own look at the shell in the workflows needs shellcheck, and is passed over where there is none.
actions_sound() {
  local actionlint
  actionlint=$(scripts/tool.sh actionlint) && "$actionlint" .github/workflows/*.yml examples/ci/github-actions/*.yml
}

golangci_sound() {
  local golangci
  golangci=$(scripts/tool.sh golangci-lint) && in_each_module "$golangci" run ./...
}

# The tool is the engine's module's.
staticcheck_sound() {
  local staticcheck
  staticcheck=$(go tool -n staticcheck) && in_each_module "$staticcheck" ./...
}

# check_with runs a check if there is the command that it needs.
check_with() {
  if command -v "$1" >/dev/null; then
    check "$@"
  else
    note "no $1 here; passing over what it would check"
  fi
}

check gofmt formatted
check 'licence headers' licensed
check 'go vet' in_each_module go vet ./...
check 'go vet with the tag profile' go vet -tags profile ./cmd/...
check staticcheck staticcheck_sound
check golangci-lint golangci_sound
check 'go mod tidy' in_each_module go mod tidy -diff
check actionlint actions_sound
check_with shellcheck shell_sound
check_with python3 python_sound
check_with node node_sound
check glossary glossary

((failures == 0)) || die "$failures checks failed"
note 'nothing to say'

#!/usr/bin/python3
# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0
"""Asks API Connect who it is, again and again, with the token that Vault shares."""

import datetime
import sys
import time

import hvac
import requests

PATH = "apic/token/us-south"


def warn(text):
    print("warning:", text, file=sys.stderr)


class TokenSource:
    """Keeps the token of one path, and reads it again once its ttl is over."""

    def __init__(self, vault, path):
        self._vault = vault
        self._path = path
        self._current = None
        self._due = 0.0

    def current(self):
        """Answers Vault's data: the token, the api_url to use it at, and what else there is."""
        if time.monotonic() < self._due:
            return self._current
        # From before the read, however long it takes.
        asked = time.monotonic()
        try:
            self._current = self._read()
            self._due = asked + self._current["ttl"]
        except (hvac.exceptions.VaultError, requests.RequestException) as error:
            if not self._alive():
                raise
            warn(f"{error}; going on with a token that is valid until {self._current['expires_at']}")
            self._due = asked + 1
        return self._current

    def _read(self):
        answer = self._vault.read(self._path)
        if answer is None:
            raise hvac.exceptions.InvalidPath("nothing is mounted there", method="get", url=self._path)
        for warning in answer.get("warnings") or []:
            warn(warning)
        return answer["data"]

    def _alive(self):
        if self._current is None:
            return False
        end = datetime.datetime.fromisoformat(self._current["expires_at"].replace("Z", "+00:00"))
        return datetime.datetime.now(datetime.timezone.utc) < end


def main():
    # Vault's address and the token for it are in VAULT_ADDR and VAULT_TOKEN.
    source = TokenSource(hvac.Client(), PATH)
    while True:
        apic = source.current()
        answer = requests.get(
            apic["api_url"] + "/api/me",
            headers={"Authorization": "Bearer " + apic["token"]},
            timeout=30,
        )
        print(f"{answer.url} answers {answer.status_code} to token {apic['token_id']}", flush=True)
        time.sleep(2)


if __name__ == "__main__":
    try:
        main()
    except hvac.exceptions.Forbidden as error:
        sys.exit(f"{error}\nDoes the policy of this Vault token grant read on {PATH}?")
    except (hvac.exceptions.VaultError, requests.RequestException) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        pass

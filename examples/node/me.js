#!/usr/bin/env node
// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Asks API Connect who it is, again and again, with the token that Vault shares.

import { setTimeout as sleep } from 'node:timers/promises';
import nodeVault from 'node-vault';

const path = 'apic/token/us-south';

const warn = (text) => console.error(`warning: ${text}`);

// message is an error's own or, as fetch has it there, that of its cause. The rest of the object is not for printing.
const message = (error) => (error.cause?.message ?? error.message).replace(/\s+/g, ' ').trim();

/** TokenSource keeps the token of one path, and reads it again once its ttl is over. */
class TokenSource {
  #vault;
  #path;
  #current;
  #due = 0;
  #reading;

  constructor(vault, path) {
    this.#vault = vault;
    this.#path = path;
  }

  /** current answers Vault's data: the token, the api_url to use it at, and what else there is. */
  async current() {
    if (performance.now() >= this.#due) {
      // Callers at the same time share one read.
      this.#reading ??= this.#renew().finally(() => { this.#reading = undefined; });
      await this.#reading;
    }
    return this.#current;
  }

  async #renew() {
    // From before the read, however long it takes.
    const asked = performance.now();
    try {
      const answer = await this.#vault.read(this.#path);
      answer.warnings?.forEach(warn);
      this.#current = answer.data;
      this.#due = asked + answer.data.ttl * 1000;
    } catch (error) {
      if (!this.#current || Date.now() >= Date.parse(this.#current.expires_at)) throw error;
      warn(`${message(error)}; going on with a token that is valid until ${this.#current.expires_at}`);
      this.#due = asked + 1000;
    }
  }
}

async function main() {
  // Vault's address and the token for it are in VAULT_ADDR and VAULT_TOKEN.
  const source = new TokenSource(nodeVault({ requestOptions: { timeout: 30_000 } }), path);
  for (;;) {
    const { token, token_id, api_url } = await source.current();
    const answer = await fetch(`${api_url}/api/me`, {
      headers: { Authorization: `Bearer ${token}` },
      signal: AbortSignal.timeout(30_000),
    });
    await answer.arrayBuffer(); // Only a body that was read gives its connection back.
    console.log(`${api_url}/api/me answers ${answer.status} to token ${token_id}`);
    await sleep(2000);
  }
}

try {
  await main();
} catch (error) {
  console.error(message(error));
  if (error.response?.statusCode === 403) {
    console.error(`Does the policy of this Vault token grant read on ${path}?`);
  }
  process.exitCode = 1;
}

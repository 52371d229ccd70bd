// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Package rotation replaces API keys, and deletes those that were replaced. Where keys
// work once it gets tokens with them, too. It knows neither Vault nor HTTP: a Store holds the records, an Issuer makes and deletes the
// keys, and an Engine goes from one to the other.
//
// # The record
//
// All that is known of one config's keys is one Record, inside the config's own stored
// entry: the current key; an intent, which is a creation that may have happened; a
// candidate, which was made and is not in use yet; and the retired keys, with all that
// it takes to delete them. Where keys work once it is also the current token, and
// whether a key was spent. There is no second log. Each step reads the record, compares
// it with what is stored, and stores the next one. Recovery is to read the record and to
// go on from there. A config that is deleted leaves its record behind as a tombstone,
// until nothing of it lives at an issuer.
//
// # The protocol
//
// replace.go: log in with the current key, have the issuer describe it, and bind it to
// its id, account, identity and address. Look whether the issuer has keys of this record
// that it does not know: then it is older than they, and nothing is done. Store the
// intent. Create the key. Store it as the candidate, in place of the intent. Get a token
// with it. Store it as the current key, and the one before as retired.
//
// renew.go, in place of replace.go where keys work once: the current token makes a key,
// as above, which is the candidate, and takes the place of the current key if that is
// spent. If the issuer's keys outlive a token, another one is made before the current
// one is spent, and is the key in reserve afterwards. Whether they do is known from the
// first one's end, or, where the issuer does not tell that, from the first refusal of one
// that is older than five minutes (Brief). The current key is stored as spent, then it is
// sent, then the token is stored. A dedicated token is handed out and not stored. Where no
// key can be made, the current token is kept until it is near its end; then the key in
// reserve is spent, or, if there is none, the current key is sent again, for it may work
// more than once. token.go: who waits for which token.
//
// reuse.go, where a record with renewals has a rotation too (Plan.Reuse): a key that gets a
// second token right after its first one works more than once (Key.Reusable). It stays the
// current one, without another in reserve, until the rotation is due, or a quarter of its
// life is left. Then the current token makes its successor, which takes its place once it
// has got a token, as in replace.go, and it lives on for its grace period. When it is
// refused before that, or has ended, the current token makes another one. A key that gets
// no second token is spent, and the record goes on as if it had no rotation.
//
// successor.go: what a new key has in common with the one before, and when a key that ends
// is replaced. A new key of IAM's that lacks a setting is deleted, and never current.
//
// recover.go: an intent that is found stored was not answered, or its answer not stored.
// It becomes a retired key of which the beginning of its name is all that is known, and
// blocks nothing: the next key can be made at once. It is looked for at the issuer, by
// that. What is found becomes retired with its id, for its value is lost. That there is
// none is believed only after this process has watched for 150 seconds by its own
// monotonic clock. A candidate that is found stored is tried and adopted:
// recovery goes forward, so that a late write of another process says the same. A
// tombstone whose config is still stored is dropped.
//
// retire.go: half-way through its grace period a retired key is disabled, and at its end
// deleted, both by its issuer's clock. Just before, it is fetched by its id and must be
// what was recorded; the Holders must say that nobody else holds it; and the record is
// stored with the key marked as condemned. An issuer's "no such key" is believed of old
// keys only. What fails is tried again, and told in the Status. Nothing is given up, but
// for a key of a platform's that ended a day ago, by any clock. Where the platform did not
// tell the end, which is assumed then, it is given up only if its deletion is refused, after
// a day of attempts by this process.
//
// moves.go: what operators do to a record, as pure functions.
//
// Nothing is created or deleted in the first 30 seconds of a process, unless it has
// created the config itself: a put of the process before may still land.
//
// # Invariants
//
// TestSimulation holds all of them, at every effect and commit and at the end of each
// life; TestCrash_everyPoint holds the ends of single crashes; TestMutants shows that
// each of them can be violated. The numbers are the design's.
//
//  1. The stored key works, or the status says that it does not. (checkReaders,
//     checkEnd) A record that renews has a token that lives or a key that was not spent,
//     unless all was down for longer than both, or an issuer's answer was lost together
//     with the caller who waited for it. (checkTokens, checkWayOn, checkRenews)
//  2. At an issuer lives, of our making, only what a record holds: current, candidate,
//     retired or named by an intent. (checkKeys, checkEnd) Exempt are, after the
//     restoration of a snapshot, the keys that the snapshot does not know, and those whose
//     creation was under way: they are never touched (checkHarm), and a rotation is
//     refused while they are there (TestRotate_refusals). What needs a key for its
//     deletion that was itself deleted or disabled since the snapshot may stay, and the
//     status says so. A record that renews has two keys at most in the end. (checkWayOn)
//  3. A key is deleted only if a record has it retired, bound to where it was made or
//     first used; it was fetched just before and matches; no other record holds it or
//     takes it; and this process has written that, successfully, since it decided.
//     (checkHarm)
//  4. What gives the right to delete a key is kept until it is deleted: its value, the
//     issuer's address, another key of the same identity. (checkHarm, checkKeys) At a
//     platform that is a token, and ends with it. (lacksToken)
//  5. "No such key" counts only for a key that is older than the issuer's parts may
//     take to agree. (checkKeys)
//  6. Nothing is deleted on the word of an intent alone, of a snapshot, or of a clock.
//     (checkHarm, checkDeletion)
//  7. Readers get tokens throughout. (checkReaders, checkHarm; checkTokens for records
//     that renew)
//  8. A key that works once is sent only after it was stored as spent, so that no process
//     takes it for one that is left. (tryOnPlatform)
package rotation

// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
)

func (b *backend) pathStatus() *framework.Path {
	return &framework.Path{
		Pattern:      "status/" + nameCapture,
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields:       map[string]*framework.FieldSchema{"name": nameField()},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:     b.statusRead,
				Summary:      "Read whether a config's key works, without calling the token service.",
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "read", OperationSuffix: "status"},
				Responses:    okResponse("What the node that responds knows. A field without a value is left out.", statusResponseFields()),
			},
		},
		HelpSynopsis:    "Show whether a config's key works.",
		HelpDescription: strings.TrimSpace(statusHelp),
	}
}

func statusResponseFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"token_id":             {Type: framework.TypeString, Description: "Id of the token that all readers share. Not sensitive. With cache=entity there is no such token, and token_id, expires_at and ttl are absent."},
		"expires_at":           {Type: framework.TypeTime, Description: "When the shared token expires."},
		"ttl":                  {Type: framework.TypeInt64, Description: "Seconds after which readers get a newer token."},
		"entities":             {Type: framework.TypeInt64, Description: "Vault entities that have a token in memory, at most 1,000. Only with cache=entity. Requests without an entity are not counted."},
		"clock_skew":           {Type: framework.TypeInt64, Description: "Seconds by which this node's clock is ahead of the token service's, negative if it is behind. Absent while they agree."},
		"last_success":         {Type: framework.TypeTime, Description: "When the key was last exchanged for a token. A write of the config keeps this if it keeps the shared token."},
		"last_error":           {Type: framework.TypeString, Description: "Why the last failed exchange since the config was written or loaded failed. A later success does not clear it."},
		"last_error_time":      {Type: framework.TypeTime, Description: "Time of last_error."},
		"consecutive_failures": {Type: framework.TypeInt64, Description: "Failed exchanges of the key since its last success, in this config and in others with the same key and destination. A write that keeps the key and the destination does not reset it.", Required: true},
		"retry_at":             {Type: framework.TypeTime, Description: "Until when the engine backs off, after the last of these failures or because the service asked another config to wait. A write that keeps the key and the destination does not end the backoff."},
		"api_key_age":          {Type: framework.TypeInt64, Description: "Seconds since a write or a rotation set the API key.", Required: true},
		"api_key_expires_at":   {Type: framework.TypeTime, Description: "When the API key expires, according to its issuer. Absent if it does not expire, or if Vault has not asked: it asks when you write a config that has a rotation, and with each rotation. Also absent with renew."},
		"can_be_away_until":    {Type: framework.TypeTime, Description: "With renew: until when Vault may be down and still get tokens afterwards, which is when its token or the key in reserve expires. Absent if nothing is left."},
		"last_vault_rotation":  {Type: framework.TypeTime, Description: "When the API key was last rotated."},
		"next_vault_rotation":  {Type: framework.TypeTime, Description: "When the API key is due to be rotated. A failed rotation does not change it, unless its rotation_window has ended."},

		"consecutive_rotation_failures": {Type: framework.TypeInt64, Description: "Failed rotations and renewals since the last success, the last write of the config (with renew: of its key or endpoints), or a restart."},
		"last_rotation_error":           {Type: framework.TypeString, Description: "Why the last rotation or renewal failed. Absent after one that succeeded."},
		"last_rotation_error_time":      {Type: framework.TypeTime, Description: "Time of last_rotation_error."},

		"retired_api_keys": retiredKeysField()["retired_api_keys"],
		"cleanup_errors":   {Type: framework.TypeMap, Description: "The issuer's ids of replaced keys that could not be deleted yet, each with the reason. Vault tries again."},
	}
}

func (b *backend) statusRead(ctx context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	e, err := b.configs.Get(ctx, name)
	if err == nil && e == nil {
		err = noSuchConfig(name)
	}
	if err != nil {
		return answerError("read status", err)
	}
	now := time.Now()
	data := map[string]any{"api_key_age": wholeSeconds(max(now.Sub(e.config.KeySetAt), 0))}
	addRotationTimes(data, e.config)
	setTime(data, "api_key_expires_at", e.config.keyExpiresAt())
	if e.config.renews() {
		setTime(data, "can_be_away_until", e.config.Keys.CanBeAwayUntil())
	}
	addTokenStatus(data, e.tokens(), now)
	addSourceStatus(data, e.source.Status(), now)
	maps.Copy(data, retiredKeysData(e.config))
	addRotationStatus(data, b.rotations.status(name), e.config.Keys.Retired)
	return &logical.Response{Data: data}, nil
}

func addTokenStatus(data map[string]any, tokens tokensInMemory, now time.Time) {
	if tokens.byEntity {
		data["entities"] = int64(tokens.entities)
	}
	newest := tokens.newest
	if newest == nil {
		return
	}
	if newest.ClockSkew != 0 {
		data["clock_skew"] = wholeSeconds(newest.ClockSkew)
	}
	if tokens.byEntity {
		return // It is one entity's, and says nothing of the others'.
	}
	data["token_id"] = newest.ID
	data["ttl"] = newest.TTL(now)
	setTime(data, "expires_at", newest.ExpiresAt)
}

func addSourceStatus(data map[string]any, s tokensource.Status, now time.Time) {
	if s.LastError != nil {
		data["last_error"] = s.LastError.Error()
	}
	setTime(data, "last_success", s.LastSuccess)
	setTime(data, "last_error_time", s.LastErrorAt)
	data["consecutive_failures"] = int64(s.Failures)
	if s.RetryAt.After(now) {
		setTime(data, "retry_at", s.RetryAt)
	}
}

// addRotationStatus tells of the cleanup of those keys alone that are still retired: one
// may have been taken back since.
func addRotationStatus(data map[string]any, s rotation.Status, retired []rotation.Retired) {
	reasons := make(map[string]any)
	for _, c := range s.Cleanups {
		if slices.ContainsFunc(retired, func(k rotation.Retired) bool { return k.ID == c.KeyID }) {
			reasons[c.KeyID] = c.Reason.Error()
		}
	}
	if len(reasons) > 0 {
		data["cleanup_errors"] = reasons
	}
	if s.Failures == 0 {
		return
	}
	data["consecutive_rotation_failures"] = int64(s.Failures)
	data["last_rotation_error"] = s.Last.Error()
	setTime(data, "last_rotation_error_time", s.LastAt)
}

func setTime(data map[string]any, field string, at time.Time) {
	if !at.IsZero() {
		data[field] = at.UTC().Format(time.RFC3339)
	}
}

const statusHelp = `
Says whether a config's key works. It reads memory only, and calls no service:

    $ vault read <mount>/status/us-south

token_id, expires_at and ttl describe the shared token. They are absent while there
is none: a token that nobody reads is not replaced, unless its key renews itself. With
cache=entity there is no shared token, and entities says how many Vault entities have
one of their own.

If keys renew themselves, can_be_away_until says until when Vault may be down and
still get tokens afterwards. After a failure, last_error says what went wrong and what
to do; last_rotation_error says the same of a rotation. The response has what the
answering node has seen, and no secret.
`

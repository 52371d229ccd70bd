// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
)

const (
	tokenPath = "token/"

	tokenLeaseType = "apic_token"

	maxMinTTL = 366 * 24 * time.Hour
)

func (b *backend) pathToken() *framework.Path {
	responses := okResponse("A token and when to ask for the next one.", tokenResponseFields())
	return &framework.Path{
		Pattern:      tokenPath + nameCapture,
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields: map[string]*framework.FieldSchema{
			"name": nameField(),
			"min_ttl": {
				Type:        framework.TypeDurationSecond,
				Description: "Shortest remaining life of the token that you accept. A shared token with less is replaced first, at most ten times in its life; you can ask for at most nine tenths of that life. For a dedicated token you can ask for the whole life of the service's tokens.",
				Query:       true,
			},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:     b.tokenRead,
				Summary:      "Read the shared token of a config.",
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "read", OperationSuffix: "token"},
				Responses:    responses,
			},
			logical.UpdateOperation: &framework.PathOperation{
				Callback:     b.tokenUpdate,
				Summary:      "Generate a dedicated token, which nobody else gets.",
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "generate", OperationSuffix: "token"},
				Responses:    responses,
			},
		},
		HelpSynopsis:    "Get a token for the API Connect management APIs.",
		HelpDescription: strings.TrimSpace(tokenHelp),
	}
}

func tokenResponseFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"token":               {Type: framework.TypeString, Description: "The JWT, to be sent as Authorization: Bearer.", Required: true, DisplayAttrs: &framework.DisplayAttributes{Sensitive: true}},
		"token_type":          {Type: framework.TypeString, Description: "Always Bearer.", Required: true},
		"token_id":            {Type: framework.TypeString, Description: "The JWT's jti, or a digest of the token. Use it to find the token in Vault's audit log. Not sensitive.", Required: true},
		"expires_at":          {Type: framework.TypeTime, Description: "When the token expires.", Required: true},
		"ttl":                 {Type: framework.TypeInt64, Description: "Seconds after which a read gets a newer token. This one stays valid longer.", Required: true},
		"rotation_period":     {Type: framework.TypeInt64, Description: "Seconds between replacements of the shared token.", Required: true},
		"last_vault_rotation": {Type: framework.TypeTime, Description: "When this token was issued.", Required: true},
		"region":              {Type: framework.TypeString, Description: "Region of the config.", Required: true},
		"api_url":             {Type: framework.TypeString, Description: "URL of the API manager that accepts the token.", Required: true},
	}
}

// tokenLease is the kind of lease that reads with lease=true are answered with.
func (b *backend) tokenLease() *framework.Secret {
	return &framework.Secret{
		Type:   tokenLeaseType,
		Fields: tokenResponseFields(),
		Revoke: b.tokenRevoke,
	}
}

// tokenRead answers the reads that FreshReader leaves to it. What it does for all of them, so must
// freshTokenData.
func (b *backend) tokenRead(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	return b.answerToken(ctx, req, d, "read token", func(e *entry, minTTL time.Duration) (tokensource.Response, error) {
		if e.config.Cache == cacheOff {
			return dedicatedToken(ctx, e, minTTL)
		}
		return e.read(ctx, req.EntityID, minTTL)
	})
}

func (b *backend) tokenUpdate(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	return b.answerToken(ctx, req, d, "generate token", func(e *entry, minTTL time.Duration) (tokensource.Response, error) {
		return dedicatedToken(ctx, e, minTTL)
	})
}

func dedicatedToken(ctx context.Context, e *entry, minTTL time.Duration) (tokensource.Response, error) {
	token, err := e.source.Dedicated(ctx, minTTL)
	return tokensource.Response{IssuedToken: token}, err
}

func (b *backend) answerToken(ctx context.Context, req *logical.Request, d *framework.FieldData, operation string, get func(*entry, time.Duration) (tokensource.Response, error)) (*logical.Response, error) {
	name := d.Get("name").(string)
	e, answer, err := b.getToken(ctx, name, req.Operation, d, get)
	if err != nil {
		b.countFailedRead(err)
		return answerError(operation, err)
	}
	b.countRead(req.Operation, e.config, answer)
	return b.tokenResponse(name, e.config, answer), nil
}

// getToken gets a token of the named config. If the config is replaced while the
// token is waited for, it starts over with the new one, so that no answer carries a
// token of a key that is no longer stored.
func (b *backend) getToken(ctx context.Context, name string, op logical.Operation, d *framework.FieldData, get func(*entry, time.Duration) (tokensource.Response, error)) (*entry, tokensource.Response, error) {
	minTTL := time.Duration(d.Get("min_ttl").(int)) * time.Second
	if minTTL > maxMinTTL || minTTL < 0 {
		return nil, tokensource.Response{}, fieldError("min_ttl", "must be a duration of at most a year")
	}
	for {
		e, err := b.configs.Get(ctx, name)
		if err != nil {
			return nil, tokensource.Response{}, err
		}
		if e == nil {
			return nil, tokensource.Response{}, noSuchConfig(name)
		}
		if b.isForwarded(e, op, minTTL) {
			return nil, tokensource.Response{}, logical.ErrReadOnly
		}
		answer, err := get(e, minTTL)
		if errors.Is(err, tokensource.ErrClosed) && ctx.Err() == nil {
			b.configs.discard(name, e)
			continue
		}
		return e, answer, err
	}
}

// isForwarded says whether Vault is to forward a read: a lease is written, and so is the key that
// another token takes where keys work once. Secondaries have leases of their own, and no keys.
func (b *backend) isForwarded(e *entry, op logical.Operation, minTTL time.Duration) bool {
	if e.config.Lease && b.isPerformanceStandby() {
		return true
	}
	takesKey := e.config.renews() && (e.config.Cache == cacheOff || op == logical.UpdateOperation || !e.source.IsFresh(minTTL))
	return takesKey && !b.WriteSafeReplicationState()
}

func (b *backend) isPerformanceStandby() bool {
	system := b.System()
	return system != nil && system.ReplicationState().HasState(consts.ReplicationPerformanceStandby)
}

func (b *backend) tokenResponse(name string, c *config, a tokensource.Response) *logical.Response {
	now := time.Now()
	data := newTokenData(c, a, now).fields()
	resp := &logical.Response{Data: data}
	if c.Lease {
		resp = b.Secret(tokenLeaseType).Response(data, map[string]any{"config": name, "token_id": a.ID})
		// Whole seconds rounded down: but in its token's last second, a lease does not outlive it.
		resp.Secret.TTL = max(a.ExpiresAt.Sub(now).Truncate(time.Second), time.Second)
		resp.Secret.MaxTTL = resp.Secret.TTL
	}
	if a.Stale {
		resp.AddWarning(staleWarning(a))
	}
	return resp
}

// tokenData is what responses say of a token. The members' tags are the fields' names.
type tokenData struct {
	Token             string `json:"token"`
	TokenType         string `json:"token_type"`
	TokenID           string `json:"token_id"`
	ExpiresAt         string `json:"expires_at"`
	TTL               int64  `json:"ttl"`
	RotationPeriod    int64  `json:"rotation_period"`
	LastVaultRotation string `json:"last_vault_rotation"`
	Region            string `json:"region"`
	APIURL            string `json:"api_url"`
}

func newTokenData(c *config, a tokensource.Response, now time.Time) tokenData {
	return tokenData{
		Token:             string(a.Value),
		TokenType:         "Bearer",
		TokenID:           a.ID,
		ExpiresAt:         a.ExpiresAt.Format(time.RFC3339),
		TTL:               a.TTL(now),
		RotationPeriod:    a.RotationPeriod(),
		LastVaultRotation: a.IssuedAt.UTC().Format(time.RFC3339),
		Region:            c.Region,
		APIURL:            c.apiURL(),
	}
}

// fields are the data as the framework takes them.
func (d tokenData) fields() map[string]any {
	members := reflect.ValueOf(d)
	fields := make(map[string]any, members.NumField())
	for member, value := range members.Fields() {
		fields[member.Tag.Get("json")] = value.Interface()
	}
	return fields
}

func staleWarning(a tokensource.Response) string {
	expiry := a.ExpiresAt.Format(time.RFC3339)
	if a.Why == nil {
		return fmt.Sprintf("This token is due for replacement, and the exchange for a newer one takes long. It is valid until %s.", expiry)
	}
	return fmt.Sprintf("This token is due for replacement, but the exchange for a newer one failed: %s. It is valid until %s.", a.Why, expiry)
}

// tokenRevoke ends a lease. The JWT itself cannot be called back; what can be
// done is to share it no longer. It needs neither the config nor the network, and
// always succeeds.
func (b *backend) tokenRevoke(_ context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	name, _ := req.Secret.InternalData["config"].(string)
	id, _ := req.Secret.InternalData["token_id"].(string)
	b.configs.DropToken(name, id)
	return nil, nil
}

const tokenHelp = `
Reads the token that all readers of a config share. If the config has cache=entity,
only readers of the caller's Vault entity share it:

    $ vault read <mount>/token/us-south

A write gets a dedicated token, which nobody else gets:

    $ vault write -f <mount>/token/us-south

If keys renew themselves (renew, platform only), Vault makes a key for each dedicated
token.

After ttl seconds, a read gets a newer token. The old one stays valid for a while, so
a client that reads again after ttl never holds an expired token. Vault Agent does
that by itself. A policy can grant read, update, or both.
`

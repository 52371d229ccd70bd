// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// rotationWait is how long a caller is kept waiting for a rotation, which may go on
// after that. It is less than the 60 s after which Vault's own client gives up
// and hears of nothing.
const rotationWait = 50 * time.Second

func (b *backend) pathConfigRotate() *framework.Path {
	return b.pathRotation("config/"+nameCapture+"/rotate", "config")
}

// pathRotateRoot is the same under the name that Vault's own engines have for it.
func (b *backend) pathRotateRoot() *framework.Path {
	return b.pathRotation("rotate-root/"+nameCapture, "root-credentials")
}

// pathRotation is a path that rotates. rotated is what its operation's id says is rotated.
func (b *backend) pathRotation(pattern, rotated string) *framework.Path {
	return &framework.Path{
		Pattern:      pattern,
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields: map[string]*framework.FieldSchema{
			"name": nameField(),
			"grace_period": {
				Type:        framework.TypeDurationSecond,
				Description: "How long the replaced key stays valid, 0 to 168h. 0 deletes it at once, for a leak. Defaults to the config's rotation_grace_period. No effect on platform keys that work once.",
			},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback:     b.configRotate,
				Summary:      "Replace the API key of a config by a new one and delete the old one at its issuer.",
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "rotate", OperationSuffix: rotated},
				Responses:    okResponse("The new key, without its value.", rotationResponseFields()),

				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
			},
		},
		HelpSynopsis:    "Replace the API key of a config.",
		HelpDescription: strings.TrimSpace(rotateHelp),
	}
}

func rotationResponseFields() map[string]*framework.FieldSchema {
	fields := retiredKeysField()
	maps.Copy(fields, map[string]*framework.FieldSchema{
		"api_key_id":          {Type: framework.TypeString, Description: "The issuer's id of the key that the rotation made. Not sensitive."},
		"last_vault_rotation": {Type: framework.TypeTime, Description: "When the key was last rotated."},
		"next_vault_rotation": {Type: framework.TypeTime, Description: "When the key is due to be rotated by rotation_period or rotation_schedule."},
	})
	return fields
}

func retiredKeysField() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"retired_api_keys": {Type: framework.TypeMap, Description: "The issuer's ids of replaced keys that are not deleted yet, each with the time, by the issuer's clock, at which it is to be deleted."},
	}
}

// rotationData are the response's fields about rotation, those that there are.
func rotationData(c *config) map[string]any {
	data := retiredKeysData(c)
	if !c.LastRotated.IsZero() {
		data["api_key_id"] = c.Keys.Current.ID
	}
	addRotationTimes(data, c)
	return data
}

func addRotationTimes(data map[string]any, c *config) {
	next, _ := c.rotationDue(time.Now())
	setTime(data, "last_vault_rotation", c.LastRotated)
	setTime(data, "next_vault_rotation", next)
}

func retiredKeysData(c *config) map[string]any {
	retired := make(map[string]any)
	for _, k := range c.Keys.Retired {
		if k.Keep {
			continue
		}
		until := "as soon as its issuer can be asked"
		if !k.DeleteAfter.IsZero() {
			until = k.DeleteAfter.UTC().Format(time.RFC3339)
		}
		retired[k.ID] = until
	}
	if len(retired) == 0 {
		return map[string]any{}
	}
	return map[string]any{"retired_api_keys": retired}
}

func (b *backend) configRotate(ctx context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	grace, err := graceOf(d)
	if err == nil {
		err = checkName(name)
	}
	if err == nil {
		err = b.checkRotatable(ctx, name)
	}
	if err != nil {
		return answerError("rotate config", err)
	}
	waiting, cancel := context.WithTimeout(ctx, rotationWait)
	defer cancel()
	if err := b.rotations.rotate(waiting, name, grace); err != nil {
		if errors.Is(err, rotation.ErrNoRecord) {
			err = noSuchConfig(name) // It was deleted meanwhile.
		}
		return answerError("rotate config", keepsKeyError(name, err))
	}
	found, err := b.configs.Get(ctx, name)
	if err == nil && found == nil {
		err = noSuchConfig(name)
	}
	if err != nil {
		return answerError("rotate config", err)
	}
	return &logical.Response{Data: rotationData(found.config)}, nil
}

// graceOf is the call's own grace period, nil if it names none.
func graceOf(d *framework.FieldData) (*time.Duration, error) {
	raw, named := d.GetOk("grace_period")
	if !named {
		return nil, nil
	}
	grace := time.Duration(raw.(int)) * time.Second
	if grace < 0 || grace > maxGracePeriod {
		return nil, fieldError("grace_period", "must be a duration from 0 to 168h")
	}
	return &grace, nil
}

// keepsKeyError adds to a failure of a service which key the config has then.
func keepsKeyError(name string, err error) error {
	var service *upstream.Error
	if !errors.As(err, &service) {
		return err
	}
	return fmt.Errorf("config %q keeps its API key: %w", name, err)
}

// checkRotatable catches what is the caller's mistake and no failed rotation.
func (b *backend) checkRotatable(ctx context.Context, name string) error {
	found, err := b.configs.Get(ctx, name)
	if err != nil {
		return err
	}
	if found == nil {
		return noSuchConfig(name)
	}
	c := found.config
	if c.TokenService == tokenservice.Platform && !c.Renew {
		return userErrorf("config %q has renew=false, so that Vault makes none of its keys; write renew=true, or another api_key", name)
	}
	if by, held := b.configs.holders.OtherHolder(rotation.Ref{Config: name}, c.Keys.Current.Value); held {
		return userErrorf("config %q holds the same API key, which rotation would delete; give each config a key of its own, then rotate %q", by.Config, name)
	}
	return nil
}

const rotateHelp = `
Replaces the API key itself:

    $ vault write -f <mount>/config/us-south/rotate

rotate-root/us-south does the same.

Vault creates a new key for the same identity at IBM Cloud IAM, gets a token with it,
and stores it. The old key stays valid for grace_period, which defaults to the
config's rotation_grace_period. It is disabled halfway through, and deleted at the
end. Nobody but Vault has seen the new key. Readers get tokens throughout. If a step
fails or the server stops, Vault continues or undoes the rotation by itself.

For a platform config, Vault makes another key with the current token, and readers
share the token that the new key gives. Such a config needs no schedule, unless its
keys work more than once: see rotation_period.

The key's identity must be allowed to manage its own API keys, and no other config
may hold the key. To rotate automatically, set rotation_period or rotation_schedule
in the config.
`

// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// rotationAnswer is how long a caller is kept waiting for a rotation, which may go
// on after that. It is less than the 60 s after which Vault's own client gives up
// and hears of nothing.
const rotationAnswer = 50 * time.Second

func (b *backend) pathConfigRotate() *framework.Path {
	return &framework.Path{
		Pattern:      "config/" + nameCapture + "/rotate",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields:       map[string]*framework.FieldSchema{"name": nameField()},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback:     b.configRotate,
				Summary:      "Replace the API key of a config by a new one and delete the old one at IAM.",
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "rotate", OperationSuffix: "config"},
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
	return map[string]*framework.FieldSchema{
		"api_key_id":    {Type: framework.TypeString, Description: "IAM's id of the key that rotation made. It is no secret."},
		"last_rotated":  {Type: framework.TypeTime, Description: "When the key was last rotated."},
		"next_rotation": {Type: framework.TypeTime, Description: "When the key will be rotated by schedule."},
	}
}

// rotationData are the answer's fields about rotation, those that there are.
func rotationData(c *config) map[string]any {
	data := make(map[string]any)
	if c.APIKeyID != "" {
		data["api_key_id"] = c.APIKeyID
		data["last_rotated"] = c.LastRotated.Format(time.RFC3339)
	}
	if !c.NextRotation.IsZero() {
		data["next_rotation"] = c.NextRotation.Format(time.RFC3339)
	}
	return data
}

func (b *backend) configRotate(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := checkName(name); err != nil {
		return answerError("rotate config", err)
	}
	if err := b.checkRotatable(ctx, req.Storage, name); err != nil {
		return answerError("rotate config", err)
	}
	waiting, cancel := context.WithTimeout(ctx, rotationAnswer)
	defer cancel()
	done, err := b.rotate(waiting, req.Storage, name)
	var service *upstream.Error
	if errors.As(err, &service) { // Services are called before anything is stored.
		err = fmt.Errorf("config %q keeps its API key: %w", name, err)
	}
	if err != nil {
		return answerError("rotate config", err)
	}
	resp := &logical.Response{Data: rotationData(done.config)}
	if done.left != nil {
		resp.AddWarning(fmt.Sprintf("The new key is in use, but the old one could not be deleted yet: %s. %s", done.left, whatFollows(done.left)))
	}
	return resp, nil
}

// checkRotatable catches what is the caller's mistake and no failed rotation.
func (b *backend) checkRotatable(ctx context.Context, s logical.Storage, name string) error {
	found, err := b.entry(ctx, s, name)
	if err != nil {
		return err
	}
	if found == nil {
		return noSuchConfig(name)
	}
	if found.config.TokenService == tokenservice.Platform {
		return userErrorf("config %q is of the platform token service, whose keys cannot be rotated through an API; create a key in API Connect and write the config again with it", name)
	}
	return nil
}

const rotateHelp = `
Replaces the API key itself:

    $ vault write -f <mount>/config/us-south/rotate

The engine creates a successor of the same identity at IBM Cloud IAM, buys a
token with it, stores it, and deletes the old key. After that nobody but Vault
has ever seen the key. Readers get tokens all the while. If a step fails, or the
server does, the present key stays or its successor takes over, and the other one
is deleted.

The key's identity must be allowed to manage its own API keys, and the key must
be in this config alone. Set rotation_period in the config to have it done on a
schedule. The platform token service's keys cannot be rotated.
`

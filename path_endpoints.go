// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

func (b *backend) pathEndpoints() *framework.Path {
	return &framework.Path{
		Pattern:      endpointsPath + nameCapture,
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields:       endpointFields(),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:     b.endpointsRead,
				Summary:      "Read where a config's key and its tokens go.",
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "read", OperationSuffix: "endpoints"},
				Responses:    okResponse("The addresses that are in force.", endpointResponseFields()),
			},
			logical.UpdateOperation: &framework.PathOperation{
				Callback:     b.endpointsWrite,
				Summary:      "Change where a config's key and its tokens go, without the key.",
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "write", OperationSuffix: "endpoints"},
				Responses:    noContentResponse("The addresses were changed."),

				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
			},
		},
		HelpSynopsis:    "Change where a key goes, without having the key. Needs sudo in the policy.",
		HelpDescription: strings.TrimSpace(endpointsHelp),
	}
}

// endpointSettings are the fields of a config that this path changes: those of the
// destination without token_service, because no key belongs to two services.
func endpointSettings() []setting {
	names := destinationFieldNames()
	return slices.DeleteFunc(configSettings(), func(s setting) bool {
		return s.name == "token_service" || !slices.Contains(names, s.name)
	})
}

func endpointFields() map[string]*framework.FieldSchema {
	fields := map[string]*framework.FieldSchema{
		"name": nameField(),
		"verify": {
			Type:        framework.TypeBool,
			Description: "Try the stored key at the new addresses first, and store nothing if that fails. A new token_url or ca_cert is tried by getting a token, a new iam_url by logging in there. Not stored.",
			Default:     true,
		},
	}
	for _, s := range endpointSettings() {
		fields[s.name] = s.schema
	}
	return fields
}

func endpointResponseFields() map[string]*framework.FieldSchema {
	fields := make(map[string]*framework.FieldSchema)
	for _, s := range endpointSettings() {
		fields[s.name] = s.responseSchema()
	}
	return fields
}

func (b *backend) endpointsRead(ctx context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	found, err := b.configs.Get(ctx, name)
	if err == nil && found == nil {
		err = noSuchConfig(name)
	}
	if err != nil {
		return answerError("read endpoints", err)
	}
	data := make(map[string]any)
	for _, s := range endpointSettings() {
		data[s.name] = s.get(found.config)
	}
	return &logical.Response{Data: data}, nil
}

func (b *backend) endpointsWrite(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	resp, err := b.writeEndpoints(ctx, req, d)
	if err != nil {
		return answerError("write endpoints", err)
	}
	return resp, nil
}

func (b *backend) writeEndpoints(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	stored, err := b.storedToChange(ctx, name)
	if err != nil {
		return nil, err
	}
	if stored == nil {
		return nil, noSuchConfig(name)
	}
	candidate, err := moveEndpoints(name, stored, d)
	if err != nil {
		return nil, err
	}
	w := &configWrite{name: name, entity: req.EntityID, stored: stored, candidate: candidate, byOwner: true}
	w.keepsTokens = candidate.tokenURL() == stored.tokenURL() || candidate.renews()
	if w.keepsTokens {
		w.kept = b.configs.sharedToken(name, stored)
	}
	if wantsVerification(d, true) {
		w.try = func(ctx context.Context, fresh *entry) error {
			if err := b.tryEndpoints(ctx, fresh, stored, w.entity); err != nil {
				return fmt.Errorf("config %q keeps its endpoints, because the stored key was tried at the new ones and failed; verify=false skips that: %w", name, upstream.WithoutAdvice(err))
			}
			return nil
		}
	}
	return b.carryOut(ctx, req, d, w)
}

// moveEndpoints is the stored config with the addresses that the request names.
func moveEndpoints(name string, stored *config, d *framework.FieldData) (*config, error) {
	candidate := *stored
	if err := candidate.applySettings(endpointSettings(), d); err != nil {
		return nil, err
	}
	if err := candidate.validate(name); err != nil {
		return nil, err
	}
	if err := candidate.replace(name, stored, time.Now().UTC()); err != nil {
		return nil, err
	}
	// What is to be deleted at the issuer, too, is found at its new address alone.
	candidate.Keys = candidate.Keys.Move(stored.issuer().Issuer, candidate.issuer().Issuer, candidate.CACert)
	return &candidate, nil
}

// tryEndpoints tries the key only at those places that are new: a platform key may
// be good for one token, and an exchange that proves nothing would spend it.
func (b *backend) tryEndpoints(ctx context.Context, fresh *entry, stored *config, entity string) error {
	c := fresh.config
	if c.renews() {
		return b.tryCurrentToken(ctx, fresh)
	}
	otherCA := c.CACert != stored.CACert
	if otherCA || c.tokenURL() != stored.tokenURL() {
		if err := fresh.tryKey(ctx, entity); err != nil {
			return err
		}
	}
	if c.tokenURL() == iamTokenURL(c.iamURL()) {
		return nil // IAM was that place.
	}
	// A CA of one's own says nothing about IBM Cloud's IAM, where no iam_url is set.
	if c.iamURL() == stored.iamURL() && !(otherCA && c.IAMURL != "") {
		return nil
	}
	session, err := b.issuer.Login(ctx, rotation.Binding{Issuer: c.iamURL(), CACert: c.CACert}, upstream.Secret(c.APIKey))
	if err != nil {
		return err
	}
	session.Close()
	return nil
}

const endpointsHelp = `
Changes where the key of a config and its tokens go. You do not need the key, which
nobody has after a rotation:

    $ vault write <mount>/endpoints/us-south ca_cert=@ca.pem

Vault tries the stored key at the new addresses before it stores them (verify=false
skips that). If the key renews itself, Vault tries the current token instead. Fields
that you do not name stay as they are; an empty one goes back to its default.

The path is root-protected: a policy needs sudo in addition to update or read, because
anyone who may write here can have the key sent to a host of their own.
`

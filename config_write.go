// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
)

// writeConfig prepares a candidate from what is stored and what the request
// names, tries it out, and stores it if nothing changed meanwhile.
func (b *backend) writeConfig(ctx context.Context, req *logical.Request, d *framework.FieldData, mustExist bool) (*logical.Response, error) {
	name := d.Get("name").(string)
	stored, err := b.storedToChange(ctx, name)
	if err != nil {
		return nil, err
	}
	if stored == nil && mustExist {
		return nil, noSuchConfig(name)
	}
	if stored != nil && req.Operation == logical.CreateOperation {
		return nil, existsByNow(name) // It came after Vault had asked for it.
	}
	if stored == nil && req.Operation == logical.UpdateOperation {
		return nil, goneByNow(name)
	}
	candidate, err := prepareConfig(name, stored, d)
	if err != nil {
		return nil, err
	}
	carriesKey := requestFields(d.Raw).carries("api_key")
	w := &configWrite{name: name, entity: req.EntityID, stored: stored, candidate: candidate, byOwner: carriesKey, keepsTokens: !carriesKey, looksUp: wantsVerification(d, true)}
	if w.keepsTokens {
		w.kept = b.configs.sharedToken(name, stored)
	}
	if wantsVerification(d, carriesKey) {
		w.try = b.trialOf(w, d.Raw)
	}
	return b.carryOut(ctx, req, d, w)
}

// storedToChange returns what is stored of a config that somebody wants to write, or nil.
func (b *backend) storedToChange(ctx context.Context, name string) (*config, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	b.configs.awaitClaim(ctx, name)
	return b.configs.Stored(ctx, name)
}

// trialOf tries a write's key by getting a token with it. A key that works once, and is not the
// writer's, is not spent on that: the current token proves as much.
func (b *backend) trialOf(w *configWrite, named requestFields) func(context.Context, *entry) error {
	if w.candidate.renews() && !w.changesKey() && !w.candidate.movesFrom(w.stored) && (w.candidate.Keys.Token != nil || !w.byOwner) {
		return b.tryCurrentToken
	}
	return func(ctx context.Context, fresh *entry) error {
		err := fresh.tryKey(ctx, w.entity)
		if w.stored == nil {
			return withOtherServices(err, w.candidate.TokenService, named)
		}
		return err
	}
}

// configWrite is a candidate on its way into the place of what is stored.
type configWrite struct {
	name string
	// entity is the writer's, or empty.
	entity string
	// stored is nil for a config that is created.
	stored, candidate *config
	// byOwner says that the writer has the key, or may do without it.
	byOwner bool
	// keepsTokens says that tokens stay in use. kept is then the shared one, or nil.
	keepsTokens bool
	kept        *tokensource.IssuedToken
	// try tries the candidate out, and is nil if that is not wanted. If it fails,
	// nothing is stored.
	try func(context.Context, *entry) error
	// looksUp says that the issuer may be asked about the key.
	looksUp bool
	// unknown is why the issuer did not describe the key that was tried, or nil.
	unknown error
}

// carryOut tries a write, stores it, tells of it, and responds to the request.
func (b *backend) carryOut(ctx context.Context, req *logical.Request, d *framework.FieldData, w *configWrite) (*logical.Response, error) {
	if w.changesKey() {
		if err := b.rotations.ensureListed(ctx); err != nil {
			return nil, err
		}
	}
	if err := b.tryAndStore(ctx, w); err != nil {
		return nil, err
	}
	if w.byOwner || !w.candidate.renews() { // Nobody else is to have the platform asked time and again.
		b.rotations.clearFailures(w.name)
	}
	b.Logger().Info("config written", "config", w.name)
	b.events.send(ctx, eventConfigWrite, w.name)
	resp := &logical.Response{}
	if k := w.retiredKey(); k != "" {
		resp.AddWarning(fmt.Sprintf("The key %s, which a rotation made for this config, will be deleted at its issuer in %s; status/%s says whether that works.", k, w.candidate.RotationGracePeriod, w.name))
	}
	if w.unknown != nil {
		resp.AddWarning(fmt.Sprintf("Vault asked the issuer about the key, as a rotation does, and got no description: %s. Until that works, config %q cannot be rotated, and Vault does not know whether its key expires.", w.unknown, w.name))
	}
	if why := b.renewNow(ctx, w); why != nil {
		resp.AddWarning(fmt.Sprintf("Vault could not make the next key, and will try again: %s. Until that works, config %q gets no token after the current one expires, unless its key works more than once.", why, w.name))
	}
	if len(resp.Warnings) == 0 && !ignoresFields(req, d) {
		return nil, nil
	}
	return resp, nil // The framework adds the warning that names unknown fields.
}

// changesKey says whether the config gets a key that it does not have.
func (w *configWrite) changesKey() bool {
	return w.stored == nil || !sameSecret(w.stored.APIKey, w.candidate.APIKey)
}

// retiredKey is the id of the managed key that the write has taken out of use, or
// empty.
func (w *configWrite) retiredKey() string {
	if w.stored == nil || !w.changesKey() || !w.stored.Keys.Current.Managed {
		return ""
	}
	return w.stored.Keys.Current.ID
}

// tryAndStore makes a write's candidate the config that readers use.
func (b *backend) tryAndStore(ctx context.Context, w *configWrite) error {
	fresh, err := b.configs.wire(w.name, w.candidate, w.kept)
	if err != nil {
		return err
	}
	stored := false
	defer func() {
		if !stored { // Be it for a panic.
			fresh.close()
		}
	}()
	if w.try != nil {
		if err := w.try(ctx, fresh); err != nil {
			return err
		}
	}
	w.keepToken(fresh)
	if w.looksUp {
		w.unknown = b.lookUpKey(ctx, w.candidate)
	}
	fresh.keepsTokens = w.keepsTokens
	if err := b.configs.Update(ctx, w.name, w.stored, fresh, w.kept); err != nil {
		return err
	}
	stored = true
	return nil
}

// keepToken has a config whose keys work once keep the token that its key was tried with, or
// that it has had before.
func (w *configWrite) keepToken(fresh *entry) {
	got, kept := fresh.currentToken(), w.candidate.Keys.Token
	if w.candidate.renews() && got.Value != "" && (kept == nil || kept.Value != got.Value) {
		w.candidate.Keys = w.candidate.Keys.WithToken(got)
	}
}

// prepareConfig applies the request to a copy of the stored config, or to the
// defaults, and refuses to send a key where its owner did not send it.
func prepareConfig(name string, stored *config, d *framework.FieldData) (*config, error) {
	now := time.Now().UTC()
	candidate := defaultConfig(now)
	candidate.TokenService = inferTokenService(d.Raw)
	if stored != nil {
		*candidate = *stored
	}
	if err := candidate.applySettings(configSettings(), d); err != nil {
		return nil, err
	}
	if err := candidate.validate(name); err != nil {
		return nil, err
	}
	if err := checkDestination(name, stored, candidate, d.Raw); err != nil {
		return nil, err
	}
	if err := candidate.replace(name, stored, now); err != nil {
		return nil, err
	}
	if candidate.movesFrom(stored) {
		candidate.Keys = candidate.Keys.WithoutToken() // It would go where its key now goes.
	}
	return candidate, nil
}

// wantsVerification is what the request says about it, or else byDefault. The framework takes
// null and an empty text for false.
func wantsVerification(d *framework.FieldData, byDefault bool) bool {
	if given := d.Raw["verify"]; given == nil || given == "" {
		return byDefault
	}
	return d.Get("verify").(bool)
}

// overtaken says that a write was prepared while another one happened.
func overtaken(name string, prev *config) error {
	if prev == nil {
		return existsByNow(name)
	}
	return logical.CodedError(http.StatusConflict, fmt.Sprintf("config %q was changed by another write meanwhile; nothing was stored: read it and write again", name))
}

// existsByNow is what a creation gets that came second. Changing a config takes
// another capability, which Vault asked for only if there was the config.
func existsByNow(name string) error {
	return logical.CodedError(http.StatusConflict, fmt.Sprintf("config %q was created by another write meanwhile; nothing was stored: read it, and write again to change it, which needs the update capability", name))
}

// goneByNow is what a change gets that comes after a deletion, for the same reason.
func goneByNow(name string) error {
	return logical.CodedError(http.StatusConflict, fmt.Sprintf("config %q was deleted by another request meanwhile; nothing was stored: write again to create it, which needs the create capability", name))
}

func ignoresFields(req *logical.Request, d *framework.FieldData) bool {
	for field := range req.Data {
		if d.Schema[field] == nil {
			return true
		}
	}
	return false
}

// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
)

func (b *backend) pathConfigList() *framework.Path {
	return &framework.Path{
		Pattern:      "config/?$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ListOperation: &framework.PathOperation{
				Callback:     b.configList,
				Summary:      "List the names of the configs.",
				DisplayAttrs: &framework.DisplayAttributes{OperationSuffix: "configs"},
				Responses: okResponse("Names of the configs.", map[string]*framework.FieldSchema{
					"keys": {Type: framework.TypeStringSlice, Description: "Names of the configs.", Required: true},
				}),
			},
		},
		HelpSynopsis:    "List the configs.",
		HelpDescription: "Lists the names under which API keys are kept. Keys themselves are never answered.",
	}
}

func (b *backend) pathConfig() *framework.Path {
	write := &framework.PathOperation{
		Callback:     b.configWrite,
		Summary:      "Write an API key and how it is exchanged.",
		DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "write", OperationSuffix: "config"},
		Responses:    noContentResponse("The config was written."),
		// Trying the key is a call out that must not be made once here and, when
		// storage turns out to be read-only, once more by the active node.
		ForwardPerformanceStandby:   true,
		ForwardPerformanceSecondary: true,
	}
	return &framework.Path{
		Pattern:        "config/" + nameCapture,
		DisplayAttrs:   &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields:         configFields(),
		ExistenceCheck: b.configExists,
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.CreateOperation: write,
			logical.UpdateOperation: write,
			logical.PatchOperation: &framework.PathOperation{
				Callback:     b.configPatch,
				Summary:      "Change some fields of a config; null sets a field back to its default.",
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "patch", OperationSuffix: "config"},
				Responses:    noContentResponse("The config was changed."),

				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
			},
			logical.ReadOperation: &framework.PathOperation{
				Callback:     b.configRead,
				Summary:      "Read a config, without its key.",
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "read", OperationSuffix: "config"},
				Responses:    okResponse("The config, without its secrets.", configResponseFields()),
			},
			logical.DeleteOperation: &framework.PathOperation{
				Callback:     b.configDelete,
				Summary:      "Delete a config with its key and shared token.",
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "delete", OperationSuffix: "config"},
				Responses:    noContentResponse("The config was deleted."),

				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
			},
		},
		HelpSynopsis:    "Keep an API key and say how it is exchanged for tokens.",
		HelpDescription: strings.TrimSpace(configHelp),
	}
}

// nameCapture takes whatever follows, so that an odd name gets an explanation
// and not a bare 404.
const nameCapture = "(?P<name>.+)"

func nameField() *framework.FieldSchema {
	return &framework.FieldSchema{
		Type:        framework.TypeString,
		Description: "Name of the config, by custom the region of the API Connect instance.",
		Required:    true,
	}
}

func configFields() map[string]*framework.FieldSchema {
	fields := map[string]*framework.FieldSchema{
		"name": nameField(),
		"verify": {
			Type:        framework.TypeBool,
			Description: "Buy a token before storing the config, and store nothing if that fails. Not stored. Defaults to true for a write that carries a key; other writes keep the shared token.",
		},
	}
	fields["force"] = &framework.FieldSchema{
		Type:        framework.TypeBool,
		Description: "Of a deletion: delete the config even if the key that rotation made for it cannot be deleted at IAM. A warning names the key.",
		Default:     false,
		Query:       true,
	}
	for _, s := range configSettings() {
		fields[s.name] = s.schema
	}
	return fields
}

func configResponseFields() map[string]*framework.FieldSchema {
	fields := map[string]*framework.FieldSchema{
		"created_at": {Type: framework.TypeTime, Description: "When the config was created.", Required: true},
		"updated_at": {Type: framework.TypeTime, Description: "When the config was last written.", Required: true},
	}
	maps.Copy(fields, rotationResponseFields())
	for _, s := range configSettings() {
		if s.get != nil {
			fields[s.name] = s.responseSchema()
		}
	}
	return fields
}

func (b *backend) configList(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	names, err := req.Storage.List(ctx, configStoragePrefix)
	if err != nil {
		return answerError("list configs", storageError("listing configs", err))
	}
	return logical.ListResponse(names), nil
}

func (b *backend) configExists(ctx context.Context, req *logical.Request, d *framework.FieldData) (bool, error) {
	found, err := b.entry(ctx, req.Storage, d.Get("name").(string))
	var unreadable *unreadableError
	if errors.As(err, &unreadable) {
		return true, nil // The write itself says what is wrong, which Vault would not.
	}
	return found != nil, err
}

func (b *backend) configRead(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	found, err := b.entry(ctx, req.Storage, name)
	if err != nil {
		return answerError("read config", err)
	}
	if found == nil {
		return nil, nil
	}
	data := map[string]any{
		"created_at": found.config.CreatedAt.Format(time.RFC3339),
		"updated_at": found.config.UpdatedAt.Format(time.RFC3339),
	}
	maps.Copy(data, rotationData(found.config))
	for _, s := range configSettings() {
		if s.get != nil {
			data[s.name] = s.get(found.config)
		}
	}
	return &logical.Response{Data: data}, nil
}

func (b *backend) configDelete(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if checkName(name) != nil {
		return nil, nil // There can be none of that name.
	}
	change, err := b.stopRotation(ctx, name)
	if err != nil {
		return answerError("delete config", err)
	}
	defer b.changes.end(name, change)
	warning, err := b.dropOwnKeys(ctx, req.Storage, name, change, d.Get("force").(bool))
	if err != nil {
		return answerError("delete config", err)
	}
	existed, err := b.deleteConfig(ctx, req.Storage, name)
	if err != nil {
		return answerError("delete config", storageError("deleting config "+name, err))
	}
	if !existed {
		return nil, nil
	}
	b.Logger().Info("config deleted", "config", name)
	b.sendEvent(ctx, eventConfigDelete, name)
	resp := &logical.Response{}
	resp.AddWarning("Tokens that were already handed out stay valid until they expire. " + warning)
	return resp, nil
}

// deleteConfig forgets what is in memory of the config in any case: a storage
// call that failed may have had its effect, and the next reader finds out.
func (b *backend) deleteConfig(ctx context.Context, s logical.Storage, name string) (existed bool, err error) {
	defer b.entries.locks.lock(name)()
	defer b.entries.remove(name)
	stored, err := s.Get(ctx, configStoragePrefix+name)
	if err != nil || stored == nil {
		return false, err
	}
	if err := s.Delete(ctx, configStoragePrefix+name); err != nil {
		return true, err
	}
	b.schedule.written(name, nil)
	return true, nil
}

func (b *backend) configWrite(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	resp, err := b.writeConfig(ctx, req, d, false)
	if err != nil {
		return answerError("write config", err)
	}
	return resp, nil
}

func (b *backend) configPatch(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	resp, err := b.writeConfig(ctx, req, d, true)
	if err != nil {
		return answerError("patch config", err)
	}
	return resp, nil
}

// writeConfig prepares a candidate from what is stored and what the request
// names, tries it out, and stores it if nothing changed meanwhile.
func (b *backend) writeConfig(ctx context.Context, req *logical.Request, d *framework.FieldData, mustExist bool) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := checkName(name); err != nil {
		return nil, err
	}
	stored, err := loadConfig(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	if stored == nil && mustExist {
		return nil, noSuchConfig(name)
	}
	if stored != nil && req.Operation == logical.CreateOperation {
		return nil, existsByNow(name) // It came after Vault had asked for it.
	}
	candidate, err := prepareConfig(name, stored, d)
	if err != nil {
		return nil, err
	}
	w := &configWrite{name: name, stored: stored, candidate: candidate}
	carriesKey := requestFields(d.Raw).carries("api_key")
	if !carriesKey {
		w.kept = b.sharedToken(name, stored)
	}
	if wantsVerification(d, carriesKey) {
		w.try = func(ctx context.Context, fresh *entry) error { return fresh.source.Replace(ctx) }
	}
	return b.carryOut(ctx, req, d, w)
}

// configWrite is a candidate on its way into the place of what is stored.
type configWrite struct {
	name string
	// stored is nil for a config that is created.
	stored, candidate *config
	// kept is the shared token if that stays in use, or nil.
	kept *tokensource.Lease
	// try tries the candidate out, and is nil if that is not wanted. If it fails,
	// nothing is stored.
	try func(context.Context, *entry) error
}

// carryOut tries a write, stores it, tells of it, and responds to the request.
func (b *backend) carryOut(ctx context.Context, req *logical.Request, d *framework.FieldData, w *configWrite) (*logical.Response, error) {
	left, err := b.tryAndStore(ctx, req.Storage, w)
	if err != nil {
		return nil, err
	}
	b.Logger().Info("config written", "config", w.name)
	b.sendEvent(ctx, eventConfigWrite, w.name)
	if left != nil {
		resp := &logical.Response{}
		resp.AddWarning(fmt.Sprintf("The config was written, but the key %s, which rotation had made before, could not be deleted at IAM yet: %s. %s", w.stored.APIKeyID, left, whatFollows(left)))
		return resp, nil
	}
	if ignoresFields(req, d) {
		return &logical.Response{}, nil // The framework adds the warning that names them.
	}
	return nil, nil
}

// tryAndStore makes a write's candidate the config that readers use. left says why
// a key that this takes out of use could not be deleted yet.
func (b *backend) tryAndStore(ctx context.Context, s logical.Storage, w *configWrite) (left, err error) {
	if w.candidate.replacesKeyOf(w.stored) {
		if err := b.settleBeforeNewKey(ctx, s, w.name); err != nil {
			return nil, err
		}
	}
	fresh, err := b.newEntry(w.name, w.candidate, w.kept)
	if err != nil {
		return nil, err
	}
	if w.try != nil {
		err = w.try(ctx, fresh)
	}
	if err == nil {
		left, err = b.replaceConfig(ctx, s, w.name, w.stored, fresh, w.kept)
	}
	if err != nil {
		fresh.close()
		return nil, err
	}
	return left, nil
}

// replaceConfig commits an entry. If that takes a key out of use which rotation
// made, and which nobody else has, the key is deleted at IAM too; left says why
// that has to wait.
func (b *backend) replaceConfig(ctx context.Context, s logical.Storage, name string, stored *config, fresh *entry, kept *tokensource.Lease) (left, err error) {
	if !fresh.config.replacesKeyOf(stored) {
		return nil, b.commitEntry(ctx, s, name, fresh, kept, nil)
	}
	own, err := b.announceDisuse(ctx, s, name, stored)
	if err != nil {
		return nil, err
	}
	defer own.close()
	if err := b.commitEntry(ctx, s, name, fresh, kept, nil); err != nil {
		return nil, err // The announcement will be found to be of the key that is stored.
	}
	return own.delete(ctx, fresh.config), nil
}

// whatFollows says what becomes of a key that could not be deleted.
func whatFollows(left error) string {
	if isRefused(left) {
		return "It is tried again for a day; better delete it there yourself."
	}
	return "It is tried again about once a minute."
}

// prepareConfig applies the request to a copy of the stored config, or to the
// defaults, and refuses to send a key where its owner did not send it.
func prepareConfig(name string, stored *config, d *framework.FieldData) (*config, error) {
	now := time.Now().UTC()
	candidate := defaultConfig(now)
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
	candidate.follow(stored, now)
	return candidate, nil
}

// sharedToken is the token that name's readers share under the stored config, or
// nil.
func (b *backend) sharedToken(name string, stored *config) *tokensource.Lease {
	present := b.entries.get(name)
	if present == nil || stored == nil || !present.config.sameWriteAs(stored) {
		return nil
	}
	return present.source.Current()
}

// wantsVerification is what the request says about it, or else byDefault.
func wantsVerification(d *framework.FieldData, byDefault bool) bool {
	if !requestFields(d.Raw).carries("verify") {
		return byDefault
	}
	return d.Get("verify").(bool)
}

// commitEntry stores the entry's config and then makes the entry the current
// one, provided that the config is still the one it was derived from. A token
// that was kept is given up if it was revoked meanwhile. While a change of the key
// is under way, it alone, which is then mine, may commit.
func (b *backend) commitEntry(ctx context.Context, s logical.Storage, name string, fresh *entry, kept *tokensource.Lease, mine *keyChange) error {
	defer b.entries.locks.lock(name)()
	if change := b.changes.of(name); change != mine {
		return change.conflict(name)
	}
	present, err := loadConfig(ctx, s, name)
	if err != nil {
		return err
	}
	if !fresh.config.follows(present) {
		return overtaken(name, fresh.config)
	}
	if err := storeConfig(ctx, s, name, fresh.config); err != nil {
		// It may have been stored all the same; the next reader finds out.
		b.entries.remove(name)
		return err
	}
	if kept != nil && !b.entries.shares(name, kept.ID) {
		fresh.source.Drop(kept.ID)
	}
	b.entries.set(name, fresh)
	b.schedule.written(name, fresh.config)
	return nil
}

// overtaken says that late was prepared while another write happened.
func overtaken(name string, late *config) error {
	if late.Revision == 1 {
		return existsByNow(name)
	}
	return logical.CodedError(http.StatusConflict, fmt.Sprintf("config %q was changed by another write meanwhile; nothing was stored: read it and write again", name))
}

// existsByNow is what a creation gets that came second. Changing a config takes
// another capability, which Vault asked for only if there was the config.
func existsByNow(name string) error {
	return logical.CodedError(http.StatusConflict, fmt.Sprintf("config %q was created by another write meanwhile; nothing was stored: read it, and write again to change it, which takes the update capability", name))
}

func ignoresFields(req *logical.Request, d *framework.FieldData) bool {
	for field := range req.Data {
		if d.Schema[field] == nil {
			return true
		}
	}
	return false
}

func okResponse(description string, fields map[string]*framework.FieldSchema) map[int][]framework.Response {
	return map[int][]framework.Response{
		http.StatusOK: {{Description: description, Fields: fields}},
	}
}

// noContentResponse is what a write answers: nothing, or warnings.
func noContentResponse(description string) map[int][]framework.Response {
	return map[int][]framework.Response{
		http.StatusOK:        {{Description: description + " There are warnings."}},
		http.StatusNoContent: {{Description: description}},
	}
}

var configHelp = fmt.Sprintf(`
Writes an API key and how it is exchanged for tokens:

    $ vault write <mount>/config/us-south api_key=@apikey.json

The key is tried before it is stored (verify=false skips that), kept sealed, and
never answered by any path. A later write changes only the fields it names. One
that changes where the key and its tokens go (%s) must carry api_key again, and
one that brings another key must name those of these fields again that are not at
their defaults: so nobody sends a key elsewhere who does not know it. To move a
key that nobody has, as after a rotation, write endpoints/<name>.

A token is shared by all readers of token/<name> and replaced refresh_before its
expiry. An attempt to reach the service ends after request_timeout and is
repeated up to max_retries (at most %d) times.
`, listDestinationFields(), mostRetries)

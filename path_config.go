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
		HelpDescription: "Lists the names of the configs. The API keys themselves are never returned.",
	}
}

func (b *backend) pathConfig() *framework.Path {
	write := &framework.PathOperation{
		Callback:     b.configWrite,
		Summary:      "Write an API key, and how to exchange it for tokens.",
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
		HelpSynopsis:    "Store an API key, and how to exchange it for tokens.",
		HelpDescription: strings.TrimSpace(configHelp),
	}
}

// nameCapture takes whatever follows, so that an odd name gets an explanation
// and not a bare 404.
const nameCapture = "(?P<name>.+)"

func nameField() *framework.FieldSchema {
	return &framework.FieldSchema{
		Type:        framework.TypeString,
		Description: "Name of the config, usually the region of the API Connect instance.",
		Required:    true,
	}
}

func configFields() map[string]*framework.FieldSchema {
	fields := map[string]*framework.FieldSchema{
		"name": nameField(),
		"verify": {
			Type:        framework.TypeBool,
			Description: "Exchange the key for a token before storing the config, and store nothing if that fails. Not stored. Defaults to true for a write that carries a key. Other writes keep the shared token.",
		},
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

func (b *backend) configList(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	names, err := b.configs.List(ctx)
	if err != nil {
		return answerError("list configs", err)
	}
	return logical.ListResponse(names), nil
}

func (b *backend) configExists(ctx context.Context, _ *logical.Request, d *framework.FieldData) (bool, error) {
	found, err := b.configs.Get(ctx, d.Get("name").(string))
	var unreadable *unreadableError
	if errors.As(err, &unreadable) {
		return true, nil // The write itself says what is wrong, which Vault would not.
	}
	return found != nil, err
}

func (b *backend) configRead(ctx context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	found, err := b.configs.Get(ctx, name)
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

func (b *backend) configDelete(ctx context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	deleted, err := b.deleteConfig(ctx, name)
	if err != nil {
		return answerError("delete config", err)
	}
	if deleted == nil {
		return nil, nil
	}
	resp := &logical.Response{}
	resp.AddWarning("Tokens that were already handed out stay valid until they expire. " + deleted.whatOfTheKeys())
	return resp, nil
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
Stores an API key, and how to exchange it for tokens:

    $ vault write <mount>/config/us-south api_key=@apikey.json

API Connect SaaS and self-managed V10 and V12 also need client credentials:

    $ vault write <mount>/config/us-east-a api_key=@apikey.json credentials=@credentials.json

If the write that creates a config does not name token_service, the service is
platform if credentials, client_id or client_secret is given, and login otherwise.
For a V10 Reserved Instance, set token_service=iam. Later writes infer nothing.

With renew, the default for platform, you write only one key: Vault makes the next
one with the current token. If it cannot, the write succeeds with a warning.

Vault tries the key before it stores it (verify=false skips that). The key is stored
encrypted, and no path returns it. A later write changes only the fields that it names.
A write that changes where the key and its tokens go (%s) must carry api_key again.
A write of another key must name again each of these fields that is not at its
default. So nobody can send a key elsewhere without knowing it. If nobody has the
key, as after a rotation, write endpoints/<name> instead.

All readers of token/<name> share a token; with cache=entity, those of each Vault
entity do. It is replaced refresh_before its expiry. An attempt to reach the service
times out after request_timeout, and is repeated up to max_retries (at most %d) times.
`, listDestinationFields(), mostRetries)

// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func (b *backend) pathConfigCheck() *framework.Path {
	return &framework.Path{
		Pattern:      "config/" + nameCapture + "/check",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields:       map[string]*framework.FieldSchema{"name": nameField()},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:     b.configCheck,
				Summary:      "Find what would stop a rotation of a config's key or a read of its tokens, without changing anything.",
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "check", OperationSuffix: "config"},
				Responses:    okResponse("What was found. A field begins with ok, warning, error or unknown; what does not apply is left out.", checkResponseFields()),

				// What is known of other configs' keys, and of rotations, the active node knows.
				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
			},
		},
		HelpSynopsis:    "Find what would stop a rotation or a read.",
		HelpDescription: strings.TrimSpace(checkHelp),
	}
}

func checkResponseFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"ok":         {Type: framework.TypeBool, Description: "Whether there is no error.", Required: true},
		"errors":     {Type: framework.TypeCommaStringSlice, Description: "Names of the fields below that begin with error.", Required: true},
		"warnings":   {Type: framework.TypeCommaStringSlice, Description: "Names of the fields below that begin with warning.", Required: true},
		"unknown":    {Type: framework.TypeCommaStringSlice, Description: "Names of the fields below that begin with unknown.", Required: true},
		"checked_at": {Type: framework.TypeTime, Description: "When this was found. The same result is returned for ten seconds, unless the config is written.", Required: true},

		checkToken:               {Type: framework.TypeString, Description: "Whether a read would get a token.", Required: true},
		checkAPIKey:              {Type: framework.TypeString, Description: "What the issuer says of the key: its id and name, whether it is disabled or locked, or why it is not accepted.", Required: true},
		checkAPIKeyExpiry:        {Type: framework.TypeString, Description: "When the key expires."},
		checkIdentity:            {Type: framework.TypeString, Description: "Whose key it is, and whether that is who the config is bound to."},
		checkAPIKeyCount:         {Type: framework.TypeString, Description: "How many keys the identity has."},
		checkRights:              {Type: framework.TypeString, Description: "Whether the identity may create and delete keys, as far as Vault can tell without trying."},
		checkUnknownAPIKeys:      {Type: framework.TypeString, Description: "Keys at the issuer that were made for this config but that the config does not know."},
		checkOtherConfigs:        {Type: framework.TypeString, Description: "Whether another config of this mount holds the same key.", Required: true},
		checkRotation:            {Type: framework.TypeString, Description: "How the last rotation went, and when the next one is due.", Required: true},
		checkCleanup:             {Type: framework.TypeString, Description: "How many replaced keys have yet to be deleted, and why one could not be.", Required: true},
		checkClock:               {Type: framework.TypeString, Description: "How far this host's clock is from the issuer's, or from that of token_url's host.", Required: true},
		checkTokenURL:            {Type: framework.TypeString, Description: "Whether the host of token_url resolves and answers.", Required: true},
		checkTokenURLCertificate: {Type: framework.TypeString, Description: "When the certificate of token_url's host expires."},
		checkIAMURL:              {Type: framework.TypeString, Description: "Whether the host of iam_url resolves and answers. Absent for platform, whose keys are made at token_url."},
		checkIAMURLCertificate:   {Type: framework.TypeString, Description: "When the certificate of iam_url's host expires."},
		checkAPIURL:              {Type: framework.TypeString, Description: "Whether the host of api_url resolves. It is not called."},
	}
}

func (b *backend) configCheck(ctx context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	e, err := b.configs.Get(ctx, name)
	if err == nil && e == nil {
		err = noSuchConfig(name)
	}
	if err != nil {
		return answerError("check config", err)
	}
	findings, at, err := b.checks.get(ctx, name, e)
	if err != nil {
		return answerError("check config", err)
	}
	return checkResponse(findings, at), nil
}

// checkResponse has a field for each finding, which the CLI prints a line each of, and the
// names of those that matter in lists, which a program looks at. Errors are warnings of
// Vault's too, which the CLI prints first.
func checkResponse(findings []finding, at time.Time) *logical.Response {
	names := map[result][]string{resultError: {}, resultWarning: {}, resultUnknown: {}}
	resp := &logical.Response{Data: make(map[string]any)}
	for _, f := range findings {
		resp.Data[f.name] = f.String()
		names[f.result] = append(names[f.result], f.name)
		if f.result == resultError {
			resp.AddWarning(f.name + ": " + strings.TrimPrefix(f.String(), string(resultError)+": "))
		}
	}
	resp.Data["ok"] = len(names[resultError]) == 0
	resp.Data["errors"], resp.Data["warnings"], resp.Data["unknown"] = names[resultError], names[resultWarning], names[resultUnknown]
	setTime(resp.Data, "checked_at", at)
	return resp
}

const checkHelp = `
Finds what would stop a rotation of the key or a read of a token:

    $ vault read <mount>/config/us-south/check

Each finding begins with ok, warning, error or unknown, and ends with what to do.
The field ok is true if there is no error. The fields errors, warnings and unknown
list the findings of each kind.

The check calls the token service and the key's issuer. It makes, disables and
deletes no key, stores nothing, and never uses a platform key, which may work only
once. If there is no fresh token, it gets one as a read would, and readers share that
token. While the engine backs off after a failure, the check makes no such call and
says so. The same result is returned for ten seconds.
`

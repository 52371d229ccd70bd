// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"cmp"
	"context"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const (
	sdkModule = "github.com/hashicorp/vault/sdk"

	// unknownBuild stands for what a build was not told about itself.
	unknownBuild = "unknown"
)

// BuildInfo says which build of the plugin runs. What is empty is not known.
type BuildInfo struct {
	// Version is a semantic version with a leading "v".
	Version string
	// Commit is the source's, and Date the commit's in RFC 3339: the same source
	// gives the same build on any day.
	Commit, Date string
}

// userAgent is how requests name the plugin.
func userAgent(build BuildInfo) string {
	return "vault-plugin-secrets-apic/" + cmp.Or(build.Version, unknownBuild)
}

func (b *backend) pathInfo() *framework.Path {
	return &framework.Path{
		Pattern:      "info",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:     b.infoRead,
				Summary:      "Read which build of the plugin answers.",
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "read", OperationSuffix: "info"},
				Responses:    okResponse("The running build.", infoResponseFields()),
			},
		},
		HelpSynopsis:    "Show which build of the plugin runs.",
		HelpDescription: strings.TrimSpace(infoHelp),
	}
}

func infoResponseFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"version":     {Type: framework.TypeString, Description: "Version of the plugin, as in the plugin catalogue.", Required: true},
		"commit":      {Type: framework.TypeString, Description: "Commit of the source. -dirty at its end means that the source had uncommitted changes; unknown means a build from outside of git.", Required: true},
		"build_date":  {Type: framework.TypeString, Description: "Date of that commit, RFC 3339.", Required: true},
		"go_version":  {Type: framework.TypeString, Description: "Go release that the plugin was built with.", Required: true},
		"sdk_version": {Type: framework.TypeString, Description: "Version of Vault's SDK in the plugin.", Required: true},
	}
}

func (b *backend) infoRead(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
	return &logical.Response{Data: map[string]any{
		"version":     cmp.Or(b.build.Version, unknownBuild),
		"commit":      cmp.Or(b.build.Commit, unknownBuild),
		"build_date":  cmp.Or(b.build.Date, unknownBuild),
		"go_version":  runtime.Version(),
		"sdk_version": sdkVersion(),
	}}, nil
}

func sdkVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return unknownBuild
	}
	for _, module := range info.Deps {
		if module.Path == sdkModule {
			return module.Version
		}
	}
	return unknownBuild
}

const infoHelp = `
Returns the version and commit of the plugin that this mount runs, and the Go and
SDK versions that it was built with:

    $ vault read <mount>/info
`

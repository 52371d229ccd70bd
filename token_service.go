// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// A config that is created need not name its token service: client credentials are
// the platform's alone. What it has become stays, whatever later writes bring.

func tokenServiceSetting() setting {
	return setting{
		name: "token_service",
		schema: &framework.FieldSchema{
			Type:          framework.TypeString,
			Description:   "Service that turns the key into a token. If the write that creates the config does not name one, the service is platform if credentials, client_id or client_secret is given, and login otherwise. Later writes keep it.",
			AllowedValues: allowedKinds(),
		},
		inferred: func(request requestFields) any { return string(inferTokenService(request)) },
		set: func(c *config, value any) error {
			kind := tokenservice.Kind(value.(string))
			if !slices.Contains(tokenservice.Kinds(), kind) {
				return fmt.Errorf("must be one of %v", tokenservice.Kinds())
			}
			c.TokenService = kind
			return nil
		},
		get: func(c *config) any { return string(c.TokenService) },
	}
}

// inferTokenService is the service of a new config whose request names none.
func inferTokenService(request requestFields) tokenservice.Kind {
	for _, s := range clientSettings() {
		if request.carries(s.name) {
			return tokenservice.Platform
		}
	}
	return tokenservice.Login
}

// otherServicesError is a failed exchange of a new config, with the services that
// may have been meant.
type otherServicesError struct {
	error
	others string
}

func (e *otherServicesError) Error() string { return e.error.Error() + "; " + e.others }

// Unwrap returns the failed exchange.
func (e *otherServicesError) Unwrap() error { return e.error }

// withOtherServices adds to the failed exchange of a new config which services its
// writer may have meant. kind is the one that was tried.
func withOtherServices(err error, kind tokenservice.Kind, request requestFields) error {
	var failed *upstream.Error
	if !errors.As(err, &failed) {
		return err
	}
	isDefault := kind == tokenservice.Login && !request.carries("token_service")
	if !isOfAnotherKind(failed) && (!isDefault || !mayBeTheWrongService(failed)) {
		return err
	}
	return &otherServicesError{err, otherServices(kind, isDefault)}
}

// isOfAnotherKind says that something answered, and not as the token service would
// have: it has no such address, takes no such request, redirects, or answers another
// thing than a token.
func isOfAnotherKind(failed *upstream.Error) bool {
	switch failed.Status {
	case 0, http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	}
	return failed.Status < http.StatusInternalServerError
}

// mayBeTheWrongService says that a service refused the key, or is not there. One that
// is there and busy or broken, or whose certificate is not trusted, says nothing
// about whether it is the right one.
func mayBeTheWrongService(failed *upstream.Error) bool {
	return failed.Outcome == upstream.Refused || failed.Status == 0 && !failed.Untrusted
}

// otherServices completes an error's text.
func otherServices(tried tokenservice.Kind, isDefault bool) string {
	text := "if " + string(tried) + " is not the token service that you meant: "
	if isDefault {
		text = "no token_service was named, so this was login (the V5 service on IBM Cloud): "
	}
	var others []string
	for _, other := range []struct {
		kind tokenservice.Kind
		set  string
	}{
		{tokenservice.Platform, "for API Connect SaaS and self-managed V10 or V12 set token_service=platform with credentials=@credentials.json"},
		{tokenservice.IAM, "for a V10 Reserved Instance set token_service=iam"},
		{tokenservice.Login, "for the V5 service on IBM Cloud set token_service=login"},
	} {
		if other.kind != tried {
			others = append(others, other.set)
		}
	}
	return text + strings.Join(others, ", ") + "; docs/token-services.md says which is yours"
}

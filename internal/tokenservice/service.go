// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Package tokenservice turns an API Connect API key into a JWT. It knows
// nothing of Vault: it speaks to the token services, judges their answers and
// makes sure that neither the key nor the JWT ever reaches an error message.
package tokenservice

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Kind names one of the ways API Connect turns a key into a token. It is the
// value of a config's token_service field.
type Kind string

// Login is the service of API Connect on IBM Cloud, the V5 public-cloud offering.
const Login Kind = "login"

// Kinds returns every kind there is, in the order the documentation lists them.
func Kinds() []Kind { return []Kind{Login} }

// Service buys tokens with the one API key it was made for. Exchange makes at
// least one call out; its errors are a *Error, or the context's.
type Service interface {
	Exchange(ctx context.Context) (*Token, error)
}

// Options says which service a key is exchanged at, and how patiently.
type Options struct {
	Kind     Kind
	TokenURL string
	APIKey   Secret
	// Transport carries the requests; see Transports.
	Transport http.RoundTripper
	// RequestTimeout bounds one attempt, from dialling to the answer's last byte.
	RequestTimeout time.Duration
	// MaxRetries is how many attempts may follow the first one.
	MaxRetries int
}

// New returns the service that o names. It makes no call out.
func New(o Options) (Service, error) {
	switch o.Kind {
	case Login:
		return newLogin(o)
	default:
		return nil, fmt.Errorf("unknown token service")
	}
}

// DefaultTokenURL is where kind's keys are exchanged in a region. The URLs are
// those of IBM's documentation of each service.
func DefaultTokenURL(_ Kind, region string) string {
	return "https://login.service." + region + ".apiconnect.ibmcloud.com/apikey"
}

// DefaultAPIURL is where kind's tokens are used in a region.
func DefaultAPIURL(_ Kind, region string) string {
	return "https://apimanager." + region + ".apiconnect.cloud.ibm.com"
}

// Secret is a string that no format verb prints.
type Secret string

const redacted = "[redacted]"

// Format writes a placeholder, whatever the verb.
func (Secret) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// Token is what an exchange bought.
type Token struct {
	// Value is the JWT.
	Value Secret
	// Type is the scheme of the Authorization header, always "Bearer".
	Type string
	// ID is the JWT's jti, or a prefix of the token's SHA-256. It is no secret.
	ID string
	// ExpiresAt is the end of the token's life, in UTC.
	ExpiresAt time.Time
}

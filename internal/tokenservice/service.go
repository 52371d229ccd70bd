// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Package tokenservice turns an API Connect API key into a JWT. It knows
// nothing of Vault: it speaks to the token services, judges their answers and
// makes sure that neither the key nor the JWT ever reaches an error message.
package tokenservice

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// Kind names one of the ways API Connect turns a key into a token. It is the
// value of a config's token_service field.
type Kind string

const (
	// Login is the service of API Connect on IBM Cloud, the V5 public-cloud offering.
	Login Kind = "login"
	// IAM is IBM Cloud's identity service, for a V10 Reserved Instance.
	IAM Kind = "iam"
	// Platform is the service of API Connect SaaS and of self-managed V10 and V12.
	Platform Kind = "platform"
)

// Kinds returns every kind there is, in the order the documentation lists them.
func Kinds() []Kind { return []Kind{Login, IAM, Platform} }

// Service exchanges the one API key that it was made for. Exchange makes at
// least one call out; its errors are a *upstream.Error, or the context's.
type Service interface {
	Exchange(ctx context.Context) (*Token, error)
}

// Options says which service a key is exchanged at, with which timeouts and retries.
type Options struct {
	Kind     Kind
	TokenURL string
	// URLField is the config's field to check if TokenURL is wrong; empty stands for
	// those that make the kind's own.
	URLField string
	APIKey   upstream.Secret
	// ClientID and ClientSecret are sent to the platform service alone.
	ClientID     string
	ClientSecret upstream.Secret
	// Others are secrets that are not sent, and that no token may hold either. Only Platform,
	// whose keys the service makes, uses them.
	Others []upstream.Secret
	// Worked is set once the key has got a token. A refusal is explained by that, also one of a
	// service that is made later. Without it, each service has its own.
	Worked *atomic.Bool
	// Transport carries the requests; see upstream.Transports.
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
	case IAM:
		return newIAM(o)
	case Platform:
		return newPlatform(o)
	default:
		return nil, fmt.Errorf("unknown token service")
	}
}

// DefaultTokenURL is where kind's keys are exchanged in a region, after IBM's
// documentation of each service. It is empty if the URL needs a region and region is
// empty.
func DefaultTokenURL(kind Kind, region string) string {
	switch {
	case kind == IAM:
		return "https://iam.cloud.ibm.com/identity/token"
	case region == "":
		return ""
	case kind == Platform:
		return "https://platform-api." + region + ".apiconnect.automation.ibm.com/api/token"
	default:
		return "https://login.service." + region + ".apiconnect.ibmcloud.com/apikey"
	}
}

// DefaultAPIURL is where kind's tokens are used in a region. The platform service
// is part of what its tokens are for, so that its URL is tokenURL's host. It is
// empty where there is no default: the host of a Reserved Instance is its own.
func DefaultAPIURL(kind Kind, region, tokenURL string) string {
	switch kind {
	case IAM:
		return ""
	case Platform:
		u, err := url.Parse(tokenURL)
		if err != nil || u.Host == "" {
			return ""
		}
		return u.Scheme + "://" + u.Host
	}
	if region == "" {
		return ""
	}
	return "https://apimanager." + region + ".apiconnect.cloud.ibm.com"
}

// Token is what an exchange returned: always a bearer token.
type Token struct {
	// Value is the JWT.
	Value upstream.Secret
	// ID is the JWT's jti, or a prefix of the token's SHA-256. It is not sensitive.
	ID string
	// ExpiresAt is the end of the token's life, in UTC: the JWT's exp, or earlier
	// where this host's clock is behind the service's.
	ExpiresAt time.Time
	// ClockSkew is how far this host's clock is ahead of the service's, negative if
	// it is behind; 0 if they differ by less than a minute, or that is unknown.
	ClockSkew time.Duration
}

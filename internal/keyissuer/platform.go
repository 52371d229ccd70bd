// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer

import (
	"context"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

const (
	platformService = "platform API key service"
	// platformURLField is the config's field that errors tell to check: the keys' address
	// follows from it.
	platformURLField = "token_url"
)

// Platform is the issuer of API keys of API Connect SaaS, and of self-managed V10 and
// V12: their platform service.
type Platform struct {
	// Transports carry the requests.
	Transports *upstream.Transports
	// RequestTimeout bounds one attempt, from dialling to the answer's last byte.
	RequestTimeout time.Duration
	// MaxRetries is how many attempts may follow the first one.
	MaxRetries int
}

var _ rotation.Issuer = (*Platform)(nil)

// Login opens a session with a token of the platform's, which is taken at its word: no
// call is made, so that a key that works once is not used up. at.Issuer is what
// precedes /cloud/api-keys, such as
// https://platform-api.us-east-a.apiconnect.automation.ibm.com/api. The session is that
// of the user in the token's sub claim; a token without one is a *upstream.Error.
func (p *Platform) Login(_ context.Context, at rotation.Binding, token rotation.Secret) (rotation.Session, error) {
	s := &platformSession{session: session{
		keysURL: at.Issuer + "/cloud/api-keys", explain: explainPlatform, bearer: token, secrets: []upstream.Secret{token},
	}}
	err := s.open(upstream.Options{
		Service: platformService, URL: at.Issuer, URLField: platformURLField,
		RequestTimeout: p.RequestTimeout, MaxRetries: p.MaxRetries,
	}, p.Transports, at.CACert)
	if err != nil {
		return nil, err
	}
	user, reason := tokenservice.Subject(token)
	if reason != "" {
		s.Close()
		return nil, s.caller.NotSent("the token " + reason)
	}
	s.user = user
	return s, nil
}

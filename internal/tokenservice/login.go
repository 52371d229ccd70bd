// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokenservice

import (
	"context"
	"net/url"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

const formContentType = "application/x-www-form-urlencoded"

// login speaks to the token service of API Connect on IBM Cloud: the key goes
// in the URL's apikey parameter of a POST without a body, and the token comes
// back in the answer's jwt property.
type login struct {
	caller *caller
	url    string
	key    upstream.Secret
}

func newLogin(o Options) (*login, error) {
	c, err := newCaller(o)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(o.TokenURL)
	if err != nil {
		return nil, err
	}
	u.RawQuery = url.Values{"apikey": {string(o.APIKey)}}.Encode()
	return &login{caller: c, url: u.String(), key: o.APIKey}, nil
}

// Exchange exchanges the key for one token.
func (l *login) Exchange(ctx context.Context) (*Token, error) {
	a, err := l.caller.Send(ctx, post(l.url, formContentType, nil, l.key), l.refusal)
	if err != nil {
		return nil, err
	}
	raw, reason := parseLoginAnswer(a.Body)
	if reason != "" {
		return nil, l.caller.InvalidResponse(a, reason)
	}
	return l.caller.accept(a, raw, time.Time{}, l.key)
}

// parseLoginAnswer returns the answer's jwt property, or what is wrong with it.
func parseLoginAnswer(body []byte) (jwt, reason string) {
	var parsed struct {
		JWT *string `json:"jwt"`
	}
	if reason := upstream.Decode(body, &parsed, tokenShape); reason != "" {
		return "", reason
	}
	if parsed.JWT == nil || *parsed.JWT == "" {
		return "", "answered without a token"
	}
	return *parsed.JWT, ""
}

func (l *login) refusal(a *upstream.Answer) upstream.Refusal {
	if !refusesKey(a.Status) {
		return l.caller.refusedRequest(a.Status)
	}
	return upstream.Refusal{
		Reason: "refused the API key",
		Advice: "check that the key exists, is enabled, has not expired and belongs to this region (a restored snapshot may hold one that was rotated since), then write the config again with api_key",
	}
}

// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokenservice

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// platform speaks to the token endpoint of API Connect SaaS and of self-managed
// V10 and V12: JSON of grant type, key and client credentials goes in, and an
// OAuth grant comes out. Its keys may be used up by an exchange, so that one
// whose outcome is unknown is not repeated.
type platform struct {
	caller  *caller
	url     string
	secrets []upstream.Secret
	body    []byte
	// worked says that an exchange of the key has succeeded before.
	worked *atomic.Bool
}

func newPlatform(o Options) (*platform, error) {
	c, err := newCaller(o)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(map[string]string{
		"grant_type":    "api_key",
		"api_key":       string(o.APIKey),
		"client_id":     o.ClientID,
		"client_secret": string(o.ClientSecret),
	})
	if err != nil {
		return nil, err
	}
	return &platform{
		caller: c, url: o.TokenURL, secrets: append([]upstream.Secret{o.APIKey, o.ClientSecret}, o.Others...), body: body,
		worked: cmp.Or(o.Worked, new(atomic.Bool)),
	}, nil
}

// Exchange exchanges the key for one token.
func (p *platform) Exchange(ctx context.Context) (*Token, error) {
	request := post(p.url, "application/json", p.body, p.secrets...)
	request.Once = true
	a, err := p.caller.Send(ctx, request, p.refusal)
	if err != nil {
		return nil, err
	}
	token, err := p.caller.redeem(a, p.secrets...)
	if err != nil {
		return nil, err
	}
	p.worked.Store(true)
	return token, nil
}

func (p *platform) refusal(a *upstream.Answer) upstream.Refusal {
	if !refusesKey(a.Status) {
		return p.caller.refusedRequest(a.Status)
	}
	because := upstream.Refusal{
		Reason: "refused the API key or the client credentials",
		Advice: "check client_id and client_secret; a key made by hand lives five minutes and is used up by its first exchange unless its own options (SaaS, Reserved Instance) or an administrator allow more (Cloud Manager, Settings, Onboarding: API Key timeout, Multiple use of apikey); then write the config again with a new api_key",
	}
	if p.worked.Load() {
		because.Reason = "refused the API key, which worked before"
		because.Advice = "by default its keys expire after five minutes and can be used once; renew=true has Vault make the next key itself, where API Connect lets it; else the options of a key (SaaS, Reserved Instance) change that, or an administrator changes that in Cloud Manager (Settings, Onboarding: API Key timeout, Multiple use of apikey); then write the config again with a new api_key"
	}
	because.Code = PlatformCode(a)
	return because
}

// PlatformCode is the platform's own code for a refusal: the status that its body
// states, where that is another than HTTP's.
func PlatformCode(a *upstream.Answer) string {
	if status := PlatformStatus(a.Body); status != 0 && status != a.Status {
		return fmt.Sprintf("status %d", status)
	}
	return ""
}

// PlatformStatus takes the numeric status from an error's body, or 0 if the body is
// not in the platform's form. The texts beside it, in arrays named message or errors,
// are not ours to repeat.
func PlatformStatus(body []byte) int {
	var parsed struct {
		Status  json.Number       `json:"status"`
		Message []json.RawMessage `json:"message"`
		Errors  []json.RawMessage `json:"errors"`
	}
	if err := json.Unmarshal(body, &parsed); err != nil || parsed.Message == nil && parsed.Errors == nil {
		return 0
	}
	status, err := parsed.Status.Int64()
	if err != nil || status < 100 || status > 999 {
		return 0
	}
	return int(status)
}

// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokenservice

import (
	"context"
	"encoding/json"
	"net/url"
	"regexp"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// iam speaks to IBM Cloud's identity service, whose access token is the bearer
// of a V10 Reserved Instance: a form of grant type and key goes in, and an OAuth
// grant comes out. See POST /identity/token in IBM's IAM API reference.
type iam struct {
	caller *caller
	url    string
	key    upstream.Secret
	form   []byte
}

func newIAM(o Options) (*iam, error) {
	c, err := newCaller(o)
	if err != nil {
		return nil, err
	}
	form := url.Values{
		"grant_type": {"urn:ibm:params:oauth:grant-type:apikey"},
		"apikey":     {string(o.APIKey)},
	}
	return &iam{caller: c, url: o.TokenURL, key: o.APIKey, form: []byte(form.Encode())}, nil
}

// Exchange exchanges the key for one token.
func (i *iam) Exchange(ctx context.Context) (*Token, error) {
	a, err := i.caller.Send(ctx, post(i.url, formContentType, i.form, i.key), i.refusal)
	if err != nil {
		return nil, err
	}
	return i.caller.redeem(a, i.key)
}

// The codes that IAM's API reference gives for a key that is not accepted, as in
// upstream.Error's Code.
const (
	IAMKeyNotFound = "BXNIM0415E"
	IAMKeyDisabled = "BXNIM0462E"
)

func (i *iam) refusal(a *upstream.Answer) upstream.Refusal {
	if !refusesKey(a.Status) {
		return i.caller.refusedRequest(a.Status)
	}
	code, requestID := parseIAMError(a.Body, i.key)
	because := upstream.Refusal{
		Reason:    "refused the API key",
		Code:      code,
		Advice:    "look the code up in IBM Cloud's documentation, then write the config again with api_key",
		RequestID: requestID,
	}
	switch code {
	case "":
		because.Advice = "check that it exists, is enabled and has not expired, then write the config again with api_key"
	case IAMKeyNotFound:
		because.Reason = "does not know the API key"
		because.Advice = "it was deleted, or rotated since the snapshot that was restored, or belongs elsewhere; create one in IBM Cloud and write the config again with api_key"
	case IAMKeyDisabled:
		because.Reason = "says that the API key is disabled"
		because.Advice = "enable it in IBM Cloud, or write the config again with another api_key"
	}
	return because
}

var iamCode = regexp.MustCompile(`^[A-Z]{2,8}[0-9]{3,5}[A-Z]?$`)

// parseIAMError takes a code and a request id from an error's body, each only if
// it looks like one and holds no secret.
func parseIAMError(body []byte, key upstream.Secret) (code, requestID string) {
	var parsed struct {
		ErrorCode string `json:"errorCode"`
		Context   struct {
			RequestID string `json:"requestId"`
		} `json:"context"`
	}
	// A body of another shape leaves the fields empty, which is what it tells.
	_ = json.Unmarshal(body, &parsed)
	if iamCode.MatchString(parsed.ErrorCode) && !upstream.HoldsAny(parsed.ErrorCode, key) {
		code = parsed.ErrorCode
	}
	return code, upstream.Handle(parsed.Context.RequestID, key)
}

// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokenservice

import (
	"cmp"
	"net/http"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// tokenShape is what an answer's JSON is compared with in errors.
const tokenShape = "a token's"

// caller sends one token service's requests and makes tokens of its answers.
type caller struct {
	*upstream.Caller
	// urlFields are what to check if an address is wrong.
	urlFields string
}

func newCaller(o Options) (*caller, error) {
	c, err := upstream.NewCaller(upstream.Options{
		Service: string(o.Kind) + " token service", URL: o.TokenURL, URLField: cmp.Or(o.URLField, "token_url"),
		RequestIDHeader: requestIDHeader(o.Kind),
		Transport:       o.Transport, RequestTimeout: o.RequestTimeout, MaxRetries: o.MaxRetries,
	})
	if err != nil {
		return nil, err
	}
	return &caller{Caller: c, urlFields: cmp.Or(o.URLField, urlFieldsOf(o.Kind))}, nil
}

// TransactionIDHeader is where IAM's answers name the request for IBM's support. IBM
// Cloud's own clients print it too; see IBM-Cloud/bluemix-go, pull request 284.
const TransactionIDHeader = "Transaction-Id"

// requestIDHeader is empty for the services that are not known to have one.
func requestIDHeader(kind Kind) string {
	if kind == IAM {
		return TransactionIDHeader
	}
	return ""
}

// urlFieldsOf are the config's fields that make a service's URL.
func urlFieldsOf(kind Kind) string {
	if kind == IAM {
		return "iam_url and token_url"
	}
	return "region and token_url"
}

// post is the request of every token service.
func post(url, contentType string, body []byte, secrets ...upstream.Secret) upstream.Request {
	return upstream.Request{
		Method: http.MethodPost, URL: url, Body: body, Secrets: secrets,
		Header: http.Header{"Content-Type": {contentType}},
	}
}

// refusesKey says whether a status is about the key and not about the address.
func refusesKey(status int) bool {
	return status == http.StatusBadRequest || status == http.StatusUnauthorized || status == http.StatusForbidden
}

// refusedRequest is what a 4xx means that is not about the key.
func (c *caller) refusedRequest(status int) upstream.Refusal {
	if status == http.StatusNotFound {
		return upstream.Refusal{Reason: "has no such address", Advice: "check " + c.urlFields}
	}
	return upstream.Refusal{Reason: "refused the request", Advice: "check token_service, " + c.urlFields}
}

// accept makes a token of the JWT that an answer holds; see newToken.
func (c *caller) accept(a *upstream.Answer, raw string, stated time.Time, secrets ...upstream.Secret) (*Token, error) {
	token, reason := newToken(raw, stated, a.ClockSkew(), secrets...)
	if reason != "" {
		return nil, c.InvalidResponse(a, reason)
	}
	return token, nil
}

// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Package iam leads an API key's life at IBM Cloud IAM: it reads a key's details,
// creates its successor, finds one that nobody was told of, and deletes it. It
// knows nothing of Vault. The calls are those of IBM's IAM Identity Services API
// reference (https://cloud.ibm.com/apidocs/iam-identity-token-api), with field
// names and types after iamidentityv1 in IBM's platform-services-go-sdk.
package iam

import (
	"context"
	"net/http"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// urlField is the config's field that errors tell to check.
const urlField = "iam_url"

// Options say where IAM is, and how patiently it is called.
type Options struct {
	// URL is IAM's base, such as https://iam.cloud.ibm.com, without a slash at the end.
	URL string
	// Transport carries the requests; see upstream.Transports.
	Transport http.RoundTripper
	// RequestTimeout bounds one attempt, from dialling to the answer's last byte.
	RequestTimeout time.Duration
	// MaxRetries is how many attempts may follow the first one.
	MaxRetries int
}

// Client calls IAM. It holds no key.
type Client struct {
	options Options
	caller  *upstream.Caller
}

// New makes no call out. It fails if the URL does not parse.
func New(o Options) (*Client, error) {
	caller, err := upstream.NewCaller(upstream.Options{
		Service: "IAM API key service", URL: o.URL, URLField: urlField,
		RequestIDHeader: tokenservice.TransactionIDHeader,
		Transport:       o.Transport, RequestTimeout: o.RequestTimeout, MaxRetries: o.MaxRetries,
	})
	if err != nil {
		return nil, err
	}
	return &Client{options: o, caller: caller}, nil
}

// Login buys the bearer token that the session's calls are made with. A key that
// was just created may be refused for some seconds, as long as it has not reached
// all of IAM. The error is a *upstream.Error.
func (c *Client) Login(ctx context.Context, key upstream.Secret) (*Session, error) {
	service, err := tokenservice.New(tokenservice.Options{
		Kind: tokenservice.IAM, TokenURL: c.options.URL + "/identity/token", URLField: urlField, APIKey: key,
		Transport: c.options.Transport, RequestTimeout: c.options.RequestTimeout, MaxRetries: c.options.MaxRetries,
	})
	if err != nil {
		return nil, c.caller.Unasked(err.Error())
	}
	token, err := service.Exchange(ctx)
	if err != nil {
		return nil, err
	}
	return &Session{client: c, bearer: token.Value, key: key}, nil
}

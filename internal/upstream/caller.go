// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Package upstream sends requests to IBM's services with a secret in them. It
// retries what may be retried, follows no redirect, reads bounded answers, and
// makes sure that what went wrong is told without the secret.
package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	retryablehttp "github.com/hashicorp/go-retryablehttp"
)

// Options say which service is called, with which timeouts and retries.
type Options struct {
	// Service names the service in errors, such as "login token service".
	Service string
	// URL is the service's address, whose host errors name.
	URL string
	// URLField is the config's field that sets URL.
	URLField string
	// RequestIDHeader is where the service's answers name the request for its
	// support, or empty.
	RequestIDHeader string
	// Transport carries the requests; see Transports.
	Transport http.RoundTripper
	// RequestTimeout bounds one attempt, from dialling to the answer's last byte.
	RequestTimeout time.Duration
	// MaxRetries is how many attempts may follow the first one.
	MaxRetries int
}

// Caller sends one service's requests.
type Caller struct {
	service  string
	host     string
	urlField string
	idHeader string
	client   *retryablehttp.Client
}

// Request is what a service is sent.
type Request struct {
	Method string
	URL    string
	// Header is sent beside Accept, which is always application/json.
	Header http.Header
	// Body may be nil.
	Body []byte
	// Secrets are the secrets that the request holds. A request ID that holds one of them
	// is not used.
	Secrets []Secret
	// Once forbids another attempt as soon as the service may have acted on one. A
	// request that was never sent, or answered with 429, may still be repeated.
	Once bool
}

// Refusal is a 4xx in a service's own terms.
type Refusal struct {
	// Reason says what the service did, as in Error.
	Reason string
	// Code is the service's own code for it, if it has one that is fit to print.
	Code   string
	Advice string
	// RequestID names the request for the service's support, if the answer's body does.
	RequestID string
}

// NewCaller makes no call out. It fails if the URL does not parse.
func NewCaller(o Options) (*Caller, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, errors.New(o.URLField + " does not parse")
	}
	client := retryablehttp.NewClient()
	client.Logger = nil // It would log request URLs, and the login service's holds the key.
	client.RetryMax = o.MaxRetries
	client.RetryWaitMin, client.RetryWaitMax = minRetryWait, maxRetryWait
	client.CheckRetry = checkRetry
	client.Backoff = retryWait
	client.ErrorHandler = retryablehttp.PassthroughErrorHandler
	client.RequestLogHook = func(_ retryablehttp.Logger, r *http.Request, _ int) { callOf(r.Context()).attempt() }
	client.HTTPClient = &http.Client{
		Transport:     wholeAnswers{o.Transport},
		Timeout:       o.RequestTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &Caller{service: o.Service, host: u.Host, urlField: o.URLField, idHeader: o.RequestIDHeader, client: client}, nil
}

// Send returns the service's 2xx answer, or a *Error that tells the failures
// common to all services apart. refused explains a 4xx in the service's terms.
func (c *Caller) Send(ctx context.Context, r Request, refused func(*Answer) Refusal) (*Answer, error) {
	sent, ctx := begin(ctx, r.Once)
	var body any
	if r.Body != nil {
		body = r.Body
	}
	req, err := retryablehttp.NewRequestWithContext(ctx, r.Method, r.URL, body)
	if err != nil {
		return nil, c.fail(sent, Error{Reason: "could not be asked", Advice: "check " + c.urlField})
	}
	for name, values := range r.Header {
		req.Header[name] = values
	}
	req.Header.Set("Accept", "application/json")
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, c.fail(sent, transportFailure(err))
	}
	defer resp.Body.Close()
	sent.requestID = Handle(resp.Header.Get(c.idHeader), r.Secrets...)
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, c.fail(sent, transportFailure(err))
	}
	a := &Answer{Status: resp.StatusCode, Body: content, Asked: sent.started, header: resp.Header, sent: sent}
	if err := c.judge(req.URL, a, refused); err != nil {
		return nil, err
	}
	return a, nil
}

// judge turns every status but 2xx into a *Error.
func (c *Caller) judge(asked *url.URL, a *Answer, refused func(*Answer) Refusal) error {
	status := fmt.Sprintf("HTTP %d", a.Status)
	switch {
	case a.Status >= 200 && a.Status < 300:
		return nil
	case a.Status >= 300 && a.Status < 400:
		return c.fail(a.sent, Error{
			Status: a.Status,
			Reason: fmt.Sprintf("redirected to %s host (%s)", whichHost(asked, a.header), status),
			Advice: "redirects are never followed because the key would go along; set " + c.urlField + " to the final address",
		})
	case a.Status == http.StatusTooManyRequests:
		return c.fail(a.sent, Error{
			Status: a.Status, RetryAfter: retryAfter(a.Status, a.header),
			Reason: "asks to be called less often (" + status + ")",
		})
	case a.Status == http.StatusRequestTimeout || a.Status >= 500:
		return c.fail(a.sent, Error{
			Status: a.Status, RetryAfter: retryAfter(a.Status, a.header),
			Reason: "failed with " + status,
		})
	}
	because := refused(a)
	if because.Code != "" {
		status += ", " + because.Code
	}
	return c.fail(a.sent, Error{
		Outcome: Refused, Status: a.Status, Code: because.Code,
		Reason: because.Reason + " (" + status + ")", Advice: because.Advice, RequestID: because.RequestID,
	})
}

// InvalidResponse is the error for a 2xx answer that is of no use. reason says what
// the service did, as in Error.
func (c *Caller) InvalidResponse(a *Answer, reason string) error {
	a.sent.outcomeUnknown = true
	// What the answer brings may be secret too: a token, or a key that was just made.
	a.sent.requestID = Handle(a.sent.requestID, Secret(a.Body))
	return c.fail(a.sent, Error{Status: a.Status, Reason: reason})
}

// NotSent is the error for a request that was not sent.
func (c *Caller) NotSent(reason string) error {
	return c.fail(&call{started: time.Now()}, Error{Reason: "was not asked: " + reason})
}

func (c *Caller) fail(sent *call, e Error) error {
	e.Service, e.Host = c.service, c.host
	e.Attempts, e.Elapsed = sent.attempts, time.Since(sent.started)
	e.OutcomeUnknown, e.RequestID = sent.outcomeUnknown, cmp.Or(e.RequestID, sent.requestID)
	return &e
}

func whichHost(asked *url.URL, h http.Header) string {
	target, err := asked.Parse(h.Get("Location"))
	if err == nil && target.Host == asked.Host {
		return "another address on the same"
	}
	return "another"
}

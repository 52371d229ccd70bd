// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokenservice

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	retryablehttp "github.com/hashicorp/go-retryablehttp"
)

const (
	// maxAnswerBytes is the most that is read of an answer, after decompression,
	// and of its header. It is sixteen times the size of the largest token seen.
	maxAnswerBytes = 64 << 10

	minRetryWait = 200 * time.Millisecond
	maxRetryWait = 5 * time.Second
	// maxRetryAfter is the longest Retry-After that is taken at its word.
	maxRetryAfter = time.Hour
)

var errAnswerTooLarge = errors.New("answer too large")

// caller sends one service's requests: it retries what may be retried, follows
// no redirect, and reads a bounded answer.
type caller struct {
	kind   Kind
	host   string
	client *retryablehttp.Client
}

// request is what a service is sent, always with POST.
type request struct {
	url         string
	contentType string
	body        []byte
}

// refusal is a 4xx in a service's own terms.
type refusal struct {
	// reason completes the sentence "the service ...".
	reason string
	// code is the service's own code for it, if it has one that is fit to print.
	code   string
	advice string
}

// answer is a service's whole reply.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// call counts the attempts of one exchange.
type call struct {
	attempts int
	started  time.Time
}

type callKey struct{}

func newCaller(o Options) (*caller, error) {
	u, err := url.Parse(o.TokenURL)
	if err != nil {
		return nil, errors.New("token URL does not parse")
	}
	client := retryablehttp.NewClient()
	client.Logger = nil // It would log request URLs, and the login service's holds the key.
	client.RetryMax = o.MaxRetries
	client.RetryWaitMin, client.RetryWaitMax = minRetryWait, maxRetryWait
	client.CheckRetry = shouldRetry
	client.Backoff = retryWait
	client.ErrorHandler = retryablehttp.PassthroughErrorHandler
	client.RequestLogHook = func(_ retryablehttp.Logger, r *http.Request, attempt int) {
		if c, ok := r.Context().Value(callKey{}).(*call); ok {
			c.attempts = attempt + 1
		}
	}
	client.HTTPClient = &http.Client{
		Transport:     wholeAnswers{o.Transport},
		Timeout:       o.RequestTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &caller{kind: o.Kind, host: u.Host, client: client}, nil
}

// send returns the service's 2xx answer, or a *Error that tells the failures
// common to all services apart. refused explains a 4xx in the service's terms.
func (c *caller) send(ctx context.Context, r request, refused func(*answer) refusal) (*answer, *call, error) {
	sent := &call{started: time.Now()}
	ctx = context.WithValue(ctx, callKey{}, sent)
	var body any
	if r.body != nil {
		body = r.body
	}
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPost, r.url, body)
	if err != nil {
		return nil, nil, c.fail(sent, Error{Reason: "could not be asked", Advice: "check token_url"})
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", r.contentType)
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, nil, c.fail(sent, Error{Reason: transportReason(err)})
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil, c.fail(sent, Error{Reason: transportReason(err)})
	}
	a := &answer{status: resp.StatusCode, header: resp.Header, body: content}
	if err := c.judge(sent, req.URL, a, refused); err != nil {
		return nil, nil, err
	}
	return a, sent, nil
}

// judge turns every status but 2xx into a *Error.
func (c *caller) judge(sent *call, asked *url.URL, a *answer, refused func(*answer) refusal) error {
	status := fmt.Sprintf("HTTP %d", a.status)
	switch {
	case a.status >= 200 && a.status < 300:
		return nil
	case a.status >= 300 && a.status < 400:
		return c.fail(sent, Error{
			Status: a.status,
			Reason: fmt.Sprintf("redirected to %s host (%s)", whichHost(asked, a.header), status),
			Advice: "redirects are never followed because the key would go along; set token_url to the final address",
		})
	case a.status == http.StatusTooManyRequests:
		return c.fail(sent, Error{
			Status: a.status, RetryAfter: retryAfter(a.header),
			Reason: "asks to be called less often (" + status + ")",
		})
	case a.status == http.StatusRequestTimeout || a.status >= 500:
		return c.fail(sent, Error{
			Status: a.status, RetryAfter: retryAfter(a.header),
			Reason: "failed with " + status,
		})
	}
	because := refused(a)
	if because.code != "" {
		status += ", " + because.code
	}
	return c.fail(sent, Error{Outcome: Refused, Status: a.status, Reason: because.reason + " (" + status + ")", Advice: because.advice})
}

// refusesKey says whether a status is about the key and not about the address.
func refusesKey(status int) bool {
	return status == http.StatusBadRequest || status == http.StatusUnauthorized || status == http.StatusForbidden
}

// refusedRequest is what a 4xx means that is not about the key.
func refusedRequest(status int) refusal {
	if status == http.StatusNotFound {
		return refusal{reason: "has no such address", advice: "check region and token_url"}
	}
	return refusal{reason: "refused the request", advice: "check token_service, region and token_url"}
}

// accept makes a token of the JWT that an answer holds; see newToken.
func (c *caller) accept(sent *call, a *answer, raw string, stated time.Time, secrets ...Secret) (*Token, error) {
	token, reason := newToken(raw, stated, secrets...)
	if reason != "" {
		return nil, c.nonsense(sent, a, reason)
	}
	return token, nil
}

// decodeAnswer decodes a 2xx answer's JSON, or returns what is wrong with it. The
// decoder's own error may quote the answer.
func decodeAnswer(body []byte, into any) (reason string) {
	if !json.Valid(body) {
		return "answered something that is not JSON"
	}
	if err := json.Unmarshal(body, into); err != nil {
		return "answered JSON of another shape than a token's"
	}
	return ""
}

// nonsense is the error for a 2xx answer that is of no use.
func (c *caller) nonsense(sent *call, a *answer, reason string) error {
	return c.fail(sent, Error{Status: a.status, Reason: reason})
}

func (c *caller) fail(sent *call, e Error) error {
	e.Service, e.Host = c.kind, c.host
	e.Attempts, e.Elapsed = sent.attempts, time.Since(sent.started)
	return &e
}

func whichHost(asked *url.URL, h http.Header) string {
	target, err := asked.Parse(h.Get("Location"))
	if err == nil && target.Host == asked.Host {
		return "another address on the same"
	}
	return "another"
}

// transportReason describes a failed round trip by its kind. It never includes
// err's own text: *url.Error prints the URL, which may hold the key.
func transportReason(err error) string {
	var (
		timeout net.Error
		dns     *net.DNSError
		cert    *tls.CertificateVerificationError
		header  tls.RecordHeaderError
	)
	switch {
	case errors.Is(err, context.Canceled):
		return "was not heard out because the request was cancelled"
	case errors.Is(err, errAnswerTooLarge):
		return fmt.Sprintf("sent an answer of more than %d KiB", maxAnswerBytes>>10)
	case isCorruptGzip(err):
		return "sent an answer whose compression is broken"
	case errors.As(err, &cert):
		return "showed a certificate that is not trusted; check ca_cert and the certificate's dates"
	case errors.As(err, &header):
		return "does not speak TLS on that port"
	case errors.As(err, &dns):
		return "has a host name that does not resolve"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused the connection"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "did not answer in time"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "broke the connection off"
	default:
		return "could not be reached"
	}
}

func isCorruptGzip(err error) bool {
	var corrupt flate.CorruptInputError
	return errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) || errors.As(err, &corrupt)
}

// shouldRetry allows another attempt after a connection error, a 429 and a 5xx,
// and only while the wait fits before the caller's deadline.
func shouldRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err != nil {
		return isPassing(err), nil
	}
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode < 500 {
		return false, nil
	}
	wait := retryAfter(resp.Header)
	deadline, bounded := ctx.Deadline()
	tooLong := wait > maxRetryWait || bounded && time.Until(deadline) <= wait
	return !tooLong, nil
}

// shouldRetryUnsent is shouldRetry for a key that an exchange may use up: it allows
// another attempt only if the service cannot have seen this one, or says that it
// did not act on it.
func shouldRetryUnsent(ctx context.Context, resp *http.Response, err error) (bool, error) {
	var failed *net.OpError
	if err != nil && !(errors.As(err, &failed) && failed.Op == "dial") {
		return false, nil
	}
	if err == nil && resp.StatusCode != http.StatusTooManyRequests {
		return false, nil
	}
	return shouldRetry(ctx, resp, err)
}

// isPassing tells connection errors, which may pass, from answers that will be
// the same again.
func isPassing(err error) bool {
	var cert *tls.CertificateVerificationError
	return !errors.Is(err, errAnswerTooLarge) && !isCorruptGzip(err) && !errors.As(err, &cert)
}

// retryWait doubles from lowest to highest and takes a random part of the upper
// half, so that many clients of a service that failed do not come back together.
// A Retry-After that shouldRetry let pass is waited out in full.
func retryWait(lowest, highest time.Duration, attempt int, resp *http.Response) time.Duration {
	wait := min(lowest<<min(attempt, 16), highest)
	wait = wait/2 + rand.N(wait/2)
	if resp == nil {
		return wait
	}
	return max(wait, retryAfter(resp.Header))
}

// retryAfter reads a Retry-After header in both forms of RFC 9110, section
// 10.2.3, and is 0 where there is none that makes sense.
func retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	date, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(time.Until(date), 0), maxRetryAfter)
}

// wholeAnswers reads an answer's body inside the round trip, so that one which
// breaks off or never ends counts as a failed attempt, and one that is larger
// than maxAnswerBytes is never held.
type wholeAnswers struct{ http.RoundTripper }

func (t wholeAnswers) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxAnswerBytes {
		return nil, errAnswerTooLarge
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

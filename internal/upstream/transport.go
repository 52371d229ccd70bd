// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	cleanhttp "github.com/hashicorp/go-cleanhttp"
)

const (
	// product is the User-Agent of a build that was not told its version.
	product = "vault-plugin-secrets-apic"

	// maxIdleConnections is how many connections to one host a config keeps for its
	// next exchange. The default is one for each processor, which readers of dedicated
	// tokens would exceed, each time at the price of a handshake.
	maxIdleConnections = 32

	// idleTimeout is how long idle connections are kept, which is long enough for readers
	// of dedicated tokens. Connections are not shared among configs, so that a long timeout
	// would add up.
	idleTimeout = 2 * time.Second
)

// Transports makes HTTP transports. The zero value is ready to use; its fields are
// set before the first New.
type Transports struct {
	// UserAgent is what all requests say they come from, such as
	// vault-plugin-secrets-apic/v1.2.3.
	UserAgent string
	// DialContext connects in the place of a net.Dialer.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	// LookupHost resolves names for Resolve in the place of a net.Resolver.
	LookupHost func(ctx context.Context, host string) (addresses []string, err error)
	// Proxy finds the proxy of a request over TLS in the place of
	// http.ProxyFromEnvironment.
	Proxy func(*http.Request) (*url.URL, error)
}

func (t *Transports) proxy(r *http.Request) (*url.URL, error) {
	if t.Proxy != nil {
		return t.Proxy(r)
	}
	return http.ProxyFromEnvironment(r)
}

// New returns a transport that trusts caPEM, or the system's roots if caPEM is empty. The
// error says what is wrong with caPEM.
//
// No two holders share a connection: on one of HTTP/1, an answer that a service
// sends too late, or twice, is taken for the next request's, which must not be that
// of another config.
func (t *Transports) New(caPEM string) (*Transport, error) {
	if _, err := rootsOf(caPEM); err != nil {
		return nil, err
	}
	return &Transport{of: t, caPEM: caPEM}, nil
}

// rootsOf are the CAs that a transport trusts, nil for the system's.
func rootsOf(caPEM string) (*x509.CertPool, error) {
	if caPEM == "" {
		return nil, nil
	}
	certs, err := parseCACert(caPEM)
	if err != nil {
		return nil, err
	}
	return newPool(certs), nil
}

// Transport sends requests over TLS, or in plaintext to this host alone. What it takes for that
// is made when it is needed, and dropped when no connection is idle any more: it is tens of
// KiB, and most configs need none most of the time.
type Transport struct {
	of    *Transports
	caPEM string

	mu            sync.Mutex
	secure, plain *http.Transport
	// requests are those whose response has not begun. While there are none, idle waits to
	// drop what was made.
	requests int
	idle     *time.Timer
}

// RoundTrip sends a request.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	identified := r.Clone(r.Context()) // The original is not a transport's to change.
	identified.Header.Set("User-Agent", t.of.userAgent())
	over := t.begin(r.URL.Scheme)
	defer t.end()
	return over.RoundTrip(identified)
}

// begin returns what a request of a scheme is sent over.
func (t *Transport) begin(scheme string) *http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	over := t.over(scheme)
	t.requests++
	if t.idle != nil {
		t.idle.Stop()
	}
	return over
}

// over is what requests of a scheme are sent over. The caller holds the lock.
func (t *Transport) over(scheme string) *http.Transport {
	if scheme == "http" {
		if t.plain == nil {
			t.plain = t.of.newPlain()
		}
		return t.plain
	}
	if t.secure == nil {
		t.secure = t.of.newSecure(t.caPEM)
	}
	return t.secure
}

func (t *Transport) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests--
	if t.requests == 0 {
		t.idle = time.AfterFunc(idleTimeout, t.CloseIdleConnections)
	}
}

// CloseIdleConnections closes what no request uses, and the rest after use. A request that goes
// on holds what it needs of the transport.
func (t *Transport) CloseIdleConnections() {
	for _, made := range t.drop() {
		if made != nil {
			made.CloseIdleConnections()
		}
	}
}

// drop returns what was made, and forgets it.
func (t *Transport) drop() [2]*http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.idle != nil {
		t.idle.Stop()
	}
	made := [...]*http.Transport{t.secure, t.plain}
	t.secure, t.plain, t.idle = nil, nil, nil
	return made
}

func (t *Transports) userAgent() string { return cmp.Or(t.UserAgent, product) }

// newSecure starts from the pooled transport: bounded dialling and handshakes, HTTP/2 where the
// service offers it.
func (t *Transports) newSecure(caPEM string) *http.Transport {
	// Kept between exchanges, the pool would take more memory than the rest of a config.
	roots, err := rootsOf(caPEM)
	if err != nil {
		roots = x509.NewCertPool() // It was parsed before, and nobody is to be trusted instead.
	}
	secure := cleanhttp.DefaultPooledTransport()
	secure.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	secure.Proxy = t.proxy
	// A proxy is asked for a connection by a request of its own.
	secure.ProxyConnectHeader = http.Header{"User-Agent": {t.userAgent()}}
	return t.limited(secure)
}

// newPlain reaches loopback addresses only, and so no proxy.
func (t *Transports) newPlain() *http.Transport {
	plain := cleanhttp.DefaultPooledTransport()
	plain.Proxy = nil
	plain.ForceAttemptHTTP2 = false // Without TLS it would be prepared for in vain.
	dialer := &net.Dialer{Timeout: 30 * time.Second, Control: loopbackOnly}
	plain.DialContext = dialer.DialContext
	return t.limited(plain)
}

// limited has a transport connect, and keep connections, as all do.
func (t *Transports) limited(made *http.Transport) *http.Transport {
	if t.DialContext != nil {
		made.DialContext = t.DialContext
	}
	made.MaxResponseHeaderBytes = maxAnswerBytes
	made.MaxIdleConnsPerHost = maxIdleConnections
	made.IdleConnTimeout = idleTimeout
	return made
}

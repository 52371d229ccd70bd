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
	// of dedicated tokens. Connections are not shared among configs, so that a long time-out
	// would add up: ten thousand configs may all do their first exchange within a minute,
	// and their next one within the hour.
	idleTimeout = 2 * time.Second
)

// Transports makes HTTP transports. The zero value is ready to use; its fields are
// set before the first Acquire.
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

// Acquire returns a new transport that trusts caPEM, or the system's roots if
// caPEM is empty, and the function that closes its connections. The error says what
// is wrong with caPEM.
//
// No two holders share a connection: on one of HTTP/1, an answer that a service
// sends too late, or twice, is taken for the next request's, which must not be that
// of another config.
func (t *Transports) Acquire(caPEM string) (http.RoundTripper, func(), error) {
	if _, err := rootsOf(caPEM); err != nil {
		return nil, nil, err
	}
	made := &transport{userAgent: cmp.Or(t.UserAgent, product)}
	made.secure.make = func() *http.Transport {
		// Kept between exchanges, the pool would take more memory than the rest of a config.
		roots, err := rootsOf(caPEM)
		if err != nil {
			roots = x509.NewCertPool() // It was parsed before, and nobody is to be trusted instead.
		}
		secure := newSecureTransport(roots)
		secure.Proxy = t.proxy
		// A proxy is asked for a connection by a request of its own.
		secure.ProxyConnectHeader = http.Header{"User-Agent": {made.userAgent}}
		return t.dialing(secure)
	}
	made.plain.make = func() *http.Transport { return t.dialing(newPlainTransport()) }
	return made, made.CloseIdleConnections, nil
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

// dialing has a transport connect as all do.
func (t *Transports) dialing(made *http.Transport) *http.Transport {
	if t.DialContext != nil {
		made.DialContext = t.DialContext
	}
	return made
}

// transport sends a request over TLS, or in plaintext to this host alone.
type transport struct {
	secure, plain lazyTransport
	userAgent     string
}

// lazyTransport is made when it is needed, and dropped when it has no idle connection any more:
// it takes several KiB, and most configs need none most of the time.
type lazyTransport struct {
	make func() *http.Transport

	mu   sync.Mutex
	made *http.Transport
	idle *time.Timer
}

func (l *lazyTransport) get() *http.Transport {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.made == nil {
		l.made = l.make()
		l.idle = time.AfterFunc(idleTimeout, l.drop)
	}
	l.idle.Reset(idleTimeout)
	return l.made
}

// drop closes idle connections, and the others after use. A request that goes on holds what
// it needs of the transport.
func (l *lazyTransport) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.made == nil {
		return
	}
	l.idle.Stop()
	l.made.CloseIdleConnections()
	l.made, l.idle = nil, nil
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	identified := r.Clone(r.Context()) // The original is not a transport's to change.
	identified.Header.Set("User-Agent", t.userAgent)
	if r.URL.Scheme == "http" {
		return t.plain.get().RoundTrip(identified)
	}
	return t.secure.get().RoundTrip(identified)
}

// CloseIdleConnections closes what no request uses, and the rest after use.
func (t *transport) CloseIdleConnections() {
	t.secure.drop()
	t.plain.drop()
}

// newSecureTransport starts from the pooled transport: proxy from the environment,
// bounded dialling and handshakes, HTTP/2 where the service offers it. No roots are
// the system's.
func newSecureTransport(roots *x509.CertPool) *http.Transport {
	secure := cleanhttp.DefaultPooledTransport()
	secure.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	limit(secure)
	return secure
}

// newPlainTransport reaches loopback addresses only, and so no proxy.
func newPlainTransport() *http.Transport {
	plain := cleanhttp.DefaultPooledTransport()
	plain.Proxy = nil
	plain.ForceAttemptHTTP2 = false // Without TLS it would be prepared for in vain.
	dialer := &net.Dialer{Timeout: 30 * time.Second, Control: loopbackOnly}
	plain.DialContext = dialer.DialContext
	limit(plain)
	return plain
}

func limit(t *http.Transport) {
	t.MaxResponseHeaderBytes = maxAnswerBytes
	t.MaxIdleConnsPerHost = maxIdleConnections
	t.IdleConnTimeout = idleTimeout
}

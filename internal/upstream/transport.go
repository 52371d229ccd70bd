// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"sync"

	cleanhttp "github.com/hashicorp/go-cleanhttp"
)

// maxIdleConnections is how many connections to one host are kept for the next
// exchange.
const maxIdleConnections = 32

// Transports hands out one HTTP transport for each distinct CA bundle, so that
// configs which trust the same authorities share connections. A transport lives
// as long as somebody holds it. The zero value is ready to use.
type Transports struct {
	// DialContext connects in the place of a net.Dialer, if it is set before the
	// first Acquire.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)

	mu   sync.Mutex
	byCA map[[sha256.Size]byte]*sharedTransport
}

type sharedTransport struct {
	*http.Transport
	holders int
}

// Acquire returns the transport that trusts caPEM, or the system's roots if
// caPEM is empty, and the function that gives it back; call that once. The
// error says what is wrong with caPEM.
func (t *Transports) Acquire(caPEM string) (http.RoundTripper, func(), error) {
	id := sha256.Sum256([]byte(caPEM))
	t.mu.Lock()
	defer t.mu.Unlock()
	shared, ok := t.byCA[id]
	if !ok {
		transport, err := newTransport(caPEM)
		if err != nil {
			return nil, nil, err
		}
		if t.DialContext != nil {
			transport.DialContext = t.DialContext
		}
		if t.byCA == nil {
			t.byCA = make(map[[sha256.Size]byte]*sharedTransport)
		}
		shared = &sharedTransport{Transport: transport}
		t.byCA[id] = shared
	}
	shared.holders++
	return shared.Transport, sync.OnceFunc(func() { t.release(id) }), nil
}

func (t *Transports) release(id [sha256.Size]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	shared := t.byCA[id]
	shared.holders--
	if shared.holders > 0 {
		return
	}
	delete(t.byCA, id)
	shared.CloseIdleConnections()
}

// newTransport starts from the pooled transport: proxy from the environment,
// bounded dialling and handshakes, HTTP/2 where the service offers it.
func newTransport(caPEM string) (*http.Transport, error) {
	transport := cleanhttp.DefaultPooledTransport()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	transport.MaxResponseHeaderBytes = maxAnswerBytes
	// The pool's default is one connection per processor, which readers that buy
	// tokens of their own would exceed, each time at the price of a handshake.
	transport.MaxIdleConnsPerHost = maxIdleConnections
	if caPEM == "" {
		return transport, nil
	}
	roots, err := ParseCACert(caPEM)
	if err != nil {
		return nil, err
	}
	transport.TLSClientConfig.RootCAs = roots
	return transport, nil
}

// ParseCACert reads a PEM bundle of one or more certificates and nothing else.
// Its errors never quote the bundle, which may be a private key pasted by mistake.
func ParseCACert(bundle string) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	rest := []byte(bundle)
	count := 0
	for {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, errors.New("holds a PEM block that is no certificate")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errors.New("holds a certificate that does not parse")
		}
		pool.AddCert(cert)
		count++
	}
	if count == 0 {
		return nil, errors.New("holds no PEM certificate")
	}
	return pool, nil
}

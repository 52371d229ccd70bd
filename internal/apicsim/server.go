// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"crypto/tls"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
)

// Server serves a simulation on a loopback port, and can go away and come back there.
type Server struct {
	handler   http.Handler
	tlsConfig *tls.Config
	caCert    string
	addr      string

	mu     sync.Mutex
	server *http.Server
	done   chan struct{}
}

// Start serves http on a free port.
func Start(sim *Sim) (*Server, error) { return StartOn(sim, "127.0.0.1:0") }

// StartOn serves a simulation, or a handler around one, with http on addr, which
// names a loopback host and a port.
func StartOn(handler http.Handler, addr string) (*Server, error) {
	s := &Server{handler: handler, addr: addr}
	return s, s.Accept()
}

// StartTLS serves https on a free port, with a certificate that no system trusts.
func StartTLS(sim *Sim) (*Server, error) {
	// The test server of the standard library brings a certificate that is its own
	// authority, valid for 127.0.0.1.
	lender := httptest.NewTLSServer(http.NotFoundHandler())
	defer lender.Close()
	s := &Server{
		handler:   sim,
		addr:      "127.0.0.1:0",
		tlsConfig: &tls.Config{Certificates: lender.TLS.Certificates, MinVersion: tls.VersionTLS12},
		caCert:    string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: lender.Certificate().Raw})),
	}
	return s, s.Accept()
}

// URL is the server's address with its scheme.
func (s *Server) URL() string {
	if s.tlsConfig != nil {
		return "https://" + s.addr
	}
	return "http://" + s.addr
}

// CACertPEM is the authority to trust, empty for http.
func (s *Server) CACertPEM() string { return s.caCert }

// Accept listens, again if Refuse ended it, on the same port.
func (s *Server) Accept() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		return nil
	}
	listener, err := net.Listen("tcp", s.addr)
	if err != nil {
		return err
	}
	if chosen := listener.Addr().String(); chosen != s.addr {
		s.addr = chosen
	}
	if s.tlsConfig != nil {
		listener = tls.NewListener(listener, s.tlsConfig)
	}
	server, done := &http.Server{Handler: s.handler, ErrorLog: log.New(io.Discard, "", 0)}, make(chan struct{})
	s.server, s.done = server, done
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	return nil
}

// Refuse closes the listener and every connection.
func (s *Server) Refuse() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		return nil
	}
	err := s.server.Close()
	<-s.done
	s.server = nil
	return err
}

// Close ends the server.
func (s *Server) Close() { _ = s.Refuse() }

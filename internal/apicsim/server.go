// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
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

// Start serves http on a free port of 127.0.0.1.
func Start(sim *Sim) (*Server, error) { return StartOn(sim, "127.0.0.1:0") }

// StartOn serves a simulation, or a handler around one, with http on addr, which
// names a loopback host and a port; port 0 is any free one.
func StartOn(handler http.Handler, addr string) (*Server, error) {
	return start(&Server{handler: handler, addr: addr})
}

// StartTLS serves https on a free port of 127.0.0.1, with a certificate of an
// authority of its own, which nobody trusts who was not given CACertPEM.
func StartTLS(sim *Sim) (*Server, error) { return StartTLSUntil(sim, farFuture()) }

// StartTLSUntil is StartTLS with a certificate that expires at notAfter.
func StartTLSUntil(sim *Sim, notAfter time.Time) (*Server, error) {
	cert, caCert, err := newCertificate(notAfter)
	if err != nil {
		return nil, err
	}
	return start(&Server{
		handler:   sim,
		addr:      "127.0.0.1:0",
		tlsConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		caCert:    caCert,
	})
}

// start listens for the first time, which determines the port. After that addr
// does not change.
func start(s *Server) (*Server, error) {
	listener, err := net.Listen("tcp", s.addr)
	if err != nil {
		return nil, err
	}
	s.addr = listener.Addr().String()
	s.serve(listener)
	return s, nil
}

// URL is the server's address with its scheme, without a slash at the end. It
// stays the same when the server goes away and comes back.
func (s *Server) URL() string {
	if s.tlsConfig != nil {
		return "https://" + s.addr
	}
	return "http://" + s.addr
}

// CACertPEM is the authority to trust, empty for http.
func (s *Server) CACertPEM() string { return s.caCert }

// Accept listens again, on the same port, after Refuse. It fails if the port has
// been taken meanwhile.
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
	s.serve(listener)
	return nil
}

func (s *Server) serve(listener net.Listener) {
	if s.tlsConfig != nil {
		listener = tls.NewListener(listener, s.tlsConfig)
	}
	// The server would report clients that give up, which they are meant to do here.
	server := &http.Server{Handler: s.handler, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	s.server, s.done = server, done
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
}

// Refuse closes the listener and every connection. From then on connections are
// refused, until Accept.
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

// Close ends the server. It may be called more than once.
func (s *Server) Close() { _ = s.Refuse() }

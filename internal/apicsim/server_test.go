// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"syscall"
	"testing"
)

// TestServer_comesBackOnItsPort after a time in which it refuses connections.
func TestServer_comesBackOnItsPort(t *testing.T) {
	server, err := Start(newSim(t))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	address := server.URL()
	if err := server.Refuse(); err != nil {
		t.Fatal(err)
	}
	if resp, err := http.Get(address); !errors.Is(err, syscall.ECONNREFUSED) {
		if err == nil {
			resp.Body.Close()
		}
		t.Fatalf("error is %v", err)
	}
	if err := server.Accept(); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if server.URL() != address {
		t.Fatal("the server came back elsewhere")
	}
}

// trusting returns a client that trusts a server's authority, and nobody else.
func trusting(t *testing.T, server *Server) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	if server.CACertPEM() != "" && !roots.AppendCertsFromPEM([]byte(server.CACertPEM())) {
		t.Fatal("the authority is no certificate")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestServer_tlsNeedsItsAuthority(t *testing.T) {
	first, err := StartTLS(newSim(t))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := StartTLS(newSim(t))
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	resp, err := trusting(t, first).Get(first.URL() + "/v1/me")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	var untrusted x509.UnknownAuthorityError
	if _, err := trusting(t, second).Get(first.URL() + "/v1/me"); !errors.As(err, &untrusted) {
		t.Fatalf("with another authority the error is %v", err)
	}
}

func TestServer_portInUse(t *testing.T) {
	first, err := Start(newSim(t))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if second, err := StartOn(newSim(t), first.addr); err == nil || second != nil {
		t.Fatalf("got %v, error %v", second, err)
	}
}

// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/pipenet"
)

func newTransport(t *testing.T, transports *Transports, caPEM string) *Transport {
	t.Helper()
	made, err := transports.New(caPEM)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(made.CloseIdleConnections)
	return made
}

func TestTransport_verifiesCertificates(t *testing.T) {
	config := newTransport(t, &Transports{}, "").begin("https").TLSClientConfig
	if config.MinVersion < tls.VersionTLS12 || config.InsecureSkipVerify {
		t.Fatalf("TLS settings are version %x, unverified %t", config.MinVersion, config.InsecureSkipVerify)
	}
}

func TestTransport_namesItselfInEveryRequest(t *testing.T) {
	agents := make(chan string, 2)
	answer := func(w http.ResponseWriter, r *http.Request) {
		agents <- r.Method + " " + r.Header.Get("User-Agent")
		if r.Method == http.MethodConnect {
			w.WriteHeader(http.StatusBadGateway)
		}
	}
	service := httptest.NewServer(http.HandlerFunc(answer))
	t.Cleanup(service.Close)
	address, err := url.Parse(service.URL)
	if err != nil {
		t.Fatal(err)
	}
	for agent, transports := range map[string]*Transports{
		"vault-plugin-secrets-apic/v1.2.3": {UserAgent: "vault-plugin-secrets-apic/v1.2.3"},
		"vault-plugin-secrets-apic":        {},
	} {
		t.Run(agent, func(t *testing.T) {
			made := newTransport(t, transports, "")
			made.begin("https").Proxy = http.ProxyURL(address)
			c := newCallerOver(t, made, service.URL, 0)
			if _, err := put(t.Context(), c, service.URL, false); err != nil {
				t.Fatal(err)
			}
			_, err = put(t.Context(), c, "https://elsewhere.example", false)
			failure(t, err)
			for _, want := range []string{"PUT " + agent, "CONNECT " + agent} {
				if got := <-agents; got != want {
					t.Errorf("a request is %q, want %q", got, want)
				}
			}
		})
	}
}

// TestTransport_isDroppedWhenIdle frees what a config takes between two exchanges. Until then
// requests share a connection, however long the service takes.
func TestTransport_isDroppedWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := pipenet.Serve(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(10 * idleTimeout) }))
		t.Cleanup(network.Close)
		dials, line := 0, network.Line()
		made := newTransport(t, &Transports{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			dials++
			return line.Dial(ctx, network, address)
		}}, "")
		requireDials := func(want int) {
			t.Helper()
			resp, err := (&http.Client{Transport: made}).Get(pipedURL)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if dials != want {
				t.Errorf("%d connections were made, want %d", dials, want)
			}
		}
		requireDials(1)
		time.Sleep(idleTimeout - 1)
		requireDials(1)
		time.Sleep(idleTimeout)
		synctest.Wait()
		if !made.isUnused() {
			t.Error("the transport is kept")
		}
		requireDials(2)
	})
}

// TestTransport_droppedInARequest lets the answer come that takes longer than idle connections
// are kept.
func TestTransport_droppedInARequest(t *testing.T) {
	goOn := make(chan struct{})
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		<-goOn
		w.WriteHeader(http.StatusOK)
	}))
	t.Cleanup(service.Close)
	made := newTransport(t, &Transports{}, "")
	c := newCallerOver(t, made, service.URL, 0)
	done := make(chan error)
	go func() {
		_, err := put(t.Context(), c, service.URL, false)
		done <- err
	}()
	for made.isUnused() {
		runtime.Gosched()
	}
	made.CloseIdleConnections()
	close(goOn)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func (t *Transport) isUnused() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.secure == nil && t.plain == nil
}

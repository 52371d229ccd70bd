// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"context"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"
)

// caOf is the PEM of a TLS test server's certificate, which is its own authority.
func caOf(server *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: certificateType, Bytes: server.Certificate().Raw}))
}

func TestProbe_asksForTheRootAndFollowsNothing(t *testing.T) {
	requests := make(chan string, 1)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- r.Method + " " + r.URL.String()
		w.Header().Set("Date", time.Now().Add(-10*time.Minute).UTC().Format(http.TimeFormat))
		http.Redirect(w, r, "/elsewhere", http.StatusFound)
	}))
	t.Cleanup(server.Close)
	var transports Transports
	reach, err := transports.Probe(t.Context(), server.URL+"/apikey?apikey=secret", caOf(server))
	if err != nil {
		t.Fatal(err)
	}
	if got := <-requests; got != "HEAD /" {
		t.Errorf("the request is %q", got)
	}
	if reach.Failure != "" || reach.Status != http.StatusFound || reach.Proxied || !reach.CertificateEnds.Equal(server.Certificate().NotAfter) {
		t.Errorf("found %+v", reach)
	}
	if !reach.Dated {
		t.Error("the answer had no date")
	}
	if off := reach.ClockSkew - 10*time.Minute; off.Abs() > 5*time.Second {
		t.Errorf("the clock is %s ahead", reach.ClockSkew)
	}
}

func TestProbe_failures(t *testing.T) {
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	unresolved := func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: true}}
	}
	for name, c := range map[string]struct {
		transports *Transports
		address    string
		want       Reach
	}{
		"not trusted":      {&Transports{}, secure.URL, Reach{Failure: "showed a certificate that is not trusted", Advice: "check ca_cert", Untrusted: true}},
		"gone":             {&Transports{}, gone.URL, Reach{Failure: "refused the connection"}},
		"does not resolve": {&Transports{DialContext: unresolved}, "https://host.example", Reach{Failure: "has a host name that does not resolve"}},
		"a proxy that is gone": {
			&Transports{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: gone.Listener.Addr().String()})},
			"https://host.example", Reach{Failure: "refused the connection", Proxied: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := c.transports.Probe(t.Context(), c.address, ""); err != nil || got != c.want {
				t.Errorf("found %+v, %v", got, err)
			}
		})
	}
	if _, err := (&Transports{}).Probe(t.Context(), "https://host.example", "no CA"); err == nil {
		t.Error("a CA that is none is no error")
	}
}

func TestResolve_leavesItToAProxy(t *testing.T) {
	lookups := 0
	transports := &Transports{LookupHost: func(_ context.Context, host string) ([]string, error) {
		lookups++
		if host != "host.example" {
			return nil, &net.DNSError{IsNotFound: true}
		}
		return []string{"192.0.2.1"}, nil
	}}
	if proxied, failure := transports.Resolve(t.Context(), "https://host.example:8443/path"); proxied || failure != "" || lookups != 1 {
		t.Errorf("proxied %t, %q, %d lookups", proxied, failure, lookups)
	}
	if _, failure := transports.Resolve(t.Context(), "https://other.example"); failure != "has a host name that does not resolve" {
		t.Errorf("the failure is %q", failure)
	}
	transports.Proxy = func(*http.Request) (*url.URL, error) { return &url.URL{Scheme: "http", Host: "proxy.example"}, nil }
	if proxied, failure := transports.Resolve(t.Context(), "https://host.example"); !proxied || failure != "" || lookups != 2 {
		t.Errorf("proxied %t, %q, %d lookups", proxied, failure, lookups)
	}
	transports.Proxy = func(*http.Request) (*url.URL, error) { return nil, errors.New("no proxy") }
	if proxied, _ := transports.Resolve(t.Context(), "http://127.0.0.1"); proxied {
		t.Error("this host is reached through a proxy")
	}
}

// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestLoopbackOnly_judgesTheDialledAddress(t *testing.T) {
	for _, c := range []struct {
		address string
		allowed bool
	}{
		{"127.0.0.1:80", true},
		{"127.8.9.1:80", true},
		{"[::1]:80", true},
		{"[::1%lo]:80", true},
		{"[::ffff:127.0.0.1]:80", true},
		{"192.0.2.1:80", false},
		{"[2001:db8::1]:80", false},
		{"[::ffff:192.0.2.1]:80", false},
		{"0.0.0.0:80", false},
		{"[::]:80", false},
		{"169.254.169.254:80", false},
		{"localhost:80", false},
		{"", false},
	} {
		if err := loopbackOnly("tcp", c.address, nil); (err == nil) != c.allowed {
			t.Errorf("%q: the error is %v", c.address, err)
		}
	}
}

// TestTransport_plainHTTPStaysOnThisHost asks for an address of TEST-NET-1, which
// is nobody's.
func TestTransport_plainHTTPStaysOnThisHost(t *testing.T) {
	const elsewhere = "http://192.0.2.1:9"
	_, err := put(t.Context(), newCaller(t, elsewhere, 2), elsewhere, true)
	failed := failure(t, err)
	if failed.Attempts != 1 || failed.OutcomeUnknown || !strings.Contains(err.Error(), "not on this host") {
		t.Errorf("%d attempts, unknown outcome %t: %s", failed.Attempts, failed.OutcomeUnknown, err)
	}
}

func TestTransport_localhostIsReachedInPlaintext(t *testing.T) {
	service := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(service.Close)
	_, port, err := net.SplitHostPort(service.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	url := "http://localhost:" + port
	if _, err := put(t.Context(), newCaller(t, url, 0), url, false); err != nil {
		t.Fatal(err)
	}
}

// TestTransport_plainHTTPPassesNoProxy is about hosts that net/http's own rule for
// proxies does not recognise as loopback ones, such as [::1%25lo].
func TestTransport_plainHTTPPassesNoProxy(t *testing.T) {
	made := newTransport(t, &Transports{}, "")
	if made.begin("http").Proxy != nil {
		t.Error("plain http may go to a proxy")
	}
	if made.begin("https").Proxy == nil {
		t.Error("https goes past the proxy that the environment names")
	}
}

// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokenservice

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// TestPlatform_tokenThatHoldsAnotherKey is not accepted: the service that issues tokens has made
// the other keys too.
func TestPlatform_tokenThatHoldsAnotherKey(t *testing.T) {
	const other = "another-key-that-is-not-sent"
	part := base64.RawURLEncoding.EncodeToString
	claims := fmt.Sprintf(`{"exp":%d,"next":%q}`, time.Now().Add(time.Hour).Unix(), other)
	answer := fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer","expires_in":3600}`, part([]byte(`{"alg":"RS256"}`))+"."+part([]byte(claims))+".AAAA")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, answer)
	}))
	defer server.Close()
	for others, accepted := range map[upstream.Secret]bool{"": true, other: false} {
		service, err := New(Options{
			Kind: Platform, TokenURL: server.URL + "/api/token", APIKey: "key-that-is-sent", ClientID: "client", ClientSecret: "client-secret",
			Others: []upstream.Secret{others}, Transport: server.Client().Transport, RequestTimeout: 10 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = service.Exchange(t.Context())
		if (err == nil) != accepted || err != nil && !strings.Contains(err.Error(), "answered a token that holds") {
			t.Errorf("that the token is accepted is %t; error %v", err == nil, err)
		}
	}
}

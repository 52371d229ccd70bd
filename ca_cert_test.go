// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestCACert_storesTheCertificatesAlone(t *testing.T) {
	m := newMount(t)
	ca := startTLS(t).CACertPEM()
	other := startTLS(t).CACertPEM()
	m.writeConfig("us-south", map[string]any{"ca_cert": "\r\n\t" + strings.ReplaceAll(ca, "\n", "\r\n") + "  " + other + "\n\n"})
	if got := m.must(logical.ReadOperation, "config/us-south", nil).Data["ca_cert"]; got != ca+other {
		t.Errorf("ca_cert is read back as %q", got)
	}
	if got := m.stored("us-south")["ca_cert"]; got != ca+other {
		t.Errorf("ca_cert is stored as %q", got)
	}
	// The same certificates in another form are no other destination.
	m.must(logical.PatchOperation, "config/us-south", map[string]any{"ca_cert": strings.TrimSpace(ca) + other})
}

func TestCACert_refusesWhatIsNoCertificate(t *testing.T) {
	ca := startTLS(t).CACertPEM()
	apiKeyFile := `{"name":"n","apikey":"` + testKey + `"}`
	privateKey := "-----BEGIN PRIVATE KEY-----\n" + testKey + "\n-----END PRIVATE KEY-----\n"
	for name, bundle := range map[string]string{
		"an apikey.json":          apiKeyFile,
		"an apikey.json behind":   ca + apiKeyFile,
		"a private key before":    privateKey + ca,
		"a private key between":   ca + privateKey + ca,
		"a private key behind":    ca + privateKey,
		"a broken private key":    ca + strings.TrimPrefix(privateKey, "-"),
		"a comment":               "# Subject: CN=ca\n" + ca,
		"a header within a block": strings.Replace(ca, "-----\n", "-----\nKey: "+testKey+"\n\n", 1),
	} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			status, text := m.failure(logical.CreateOperation, "config/us-south", m.configData(map[string]any{"ca_cert": bundle}))
			if status != http.StatusBadRequest || !strings.HasPrefix(text, "ca_cert holds ") {
				t.Errorf("answered %d %s", status, text)
			}
			requireNoKey(t, text)
		})
	}
}

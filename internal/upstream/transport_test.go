// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"crypto/tls"
	"net/http"
	"testing"
)

func TestConfigsThatTrustTheSameShareATransportWhileOneHoldsIt(t *testing.T) {
	var transports Transports
	first, releaseFirst, err := transports.Acquire("")
	if err != nil {
		t.Fatal(err)
	}
	second, releaseSecond, err := transports.Acquire("")
	if err != nil {
		t.Fatal(err)
	}
	if first != second {
		t.Error("two configs with the system's roots have two transports")
	}
	releaseFirst()
	releaseFirst() // A second release must not take the other holder's share.
	third, releaseThird, err := transports.Acquire("")
	if err != nil {
		t.Fatal(err)
	}
	if third != second {
		t.Error("the transport was given up while somebody held it")
	}
	releaseSecond()
	releaseThird()
	if len(transports.byCA) != 0 {
		t.Errorf("%d transports are left", len(transports.byCA))
	}
}

func TestATransportVerifiesCertificatesAndSpeaksModernTLS(t *testing.T) {
	var transports Transports
	got, release, err := transports.Acquire("")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	config := got.(*http.Transport).TLSClientConfig
	if config.MinVersion < tls.VersionTLS12 || config.InsecureSkipVerify {
		t.Fatalf("TLS settings are version %x, unverified %t", config.MinVersion, config.InsecureSkipVerify)
	}
}

func TestABundleThatIsNoCertificateIsRefused(t *testing.T) {
	for name, bundle := range map[string]string{
		"text":                    "trust me",
		"a private key":           "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"a broken certificate":    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"a certificate cut short": "-----BEGIN CERTIFICATE-----\nAAAA\n",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseCACert(bundle); err == nil {
				t.Fatal("the bundle was accepted")
			}
		})
	}
}

// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"
)

// newCertificates returns two certificates and the first one's private key, in PEM.
func newCertificates(t testing.TB) (first, second, key string) {
	t.Helper()
	var made []string
	for range 2 {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a test's"}, NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
		if err != nil {
			t.Fatal(err)
		}
		secret, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
	}
	return made[0], made[2], made[1]
}

// withTrailer puts more bytes into a certificate's block.
func withTrailer(cert, more string) string {
	block, _ := pem.Decode([]byte(cert))
	block.Bytes = append(block.Bytes, more...)
	return string(pem.EncodeToMemory(block))
}

func TestParseCACert_refusesWhatIsNoCertificate(t *testing.T) {
	cert, other, key := newCertificates(t)
	brokenKey := strings.Replace(key, "-----END PRIVATE KEY-----", "---END PRIVATE KEY---", 1)
	withHeader := strings.Replace(cert, "-----\n", "-----\nComment: "+string(testSecret)+"\n\n", 1)
	apiKeyFile := `{"name":"n","apikey":"` + string(testSecret) + `"}`
	const notAlone = "holds something other than certificates"
	for name, c := range map[string]struct{ bundle, says string }{
		"nothing":                               {"", "no certificate"},
		"white space":                           {" \r\n", "no certificate"},
		"text":                                  {"trust me", notAlone},
		"a private key":                         {key, notAlone},
		"a private key before":                  {key + cert, notAlone},
		"a private key between":                 {cert + key + other, notAlone},
		"a private key behind":                  {cert + other + key, notAlone},
		"a broken private key before":           {brokenKey + cert, notAlone},
		"a broken private key between":          {cert + brokenKey + other, notAlone},
		"a broken private key behind":           {cert + brokenKey, notAlone},
		"a private key's body behind":           {cert + key[28:90], notAlone},
		"an apikey.json":                        {apiKeyFile, notAlone},
		"an apikey.json before":                 {apiKeyFile + "\n" + cert, notAlone},
		"an apikey.json behind":                 {cert + apiKeyFile, notAlone},
		"a comment":                             {"# Subject: CN=a test's\n" + cert, notAlone},
		"a certificate in words":                {"Certificate:\n    Data:\n" + cert, notAlone},
		"a byte order mark":                     {"\ufeff" + cert, notAlone},
		"a no-break space":                      {cert + "\u00a0", notAlone},
		"a NUL":                                 {cert + "\x00", notAlone},
		"another name for certificates":         {strings.ReplaceAll(cert, "CERTIFICATE", "X509 CERTIFICATE"), notAlone},
		"a certificate request":                 {strings.ReplaceAll(cert, "CERTIFICATE", "CERTIFICATE REQUEST"), notAlone},
		"a certificate cut short":               {"-----BEGIN CERTIFICATE-----\nAAAA\n", notAlone},
		"a certificate of nothing":              {"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "does not parse"},
		"a broken certificate":                  {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "does not parse"},
		"a header in a block":                   {withHeader, "does not parse"},
		"a secret within a block":               {strings.Replace(cert, "\n-----END", "\n"+string(testSecret)+"\n-----END", 1), "does not parse"},
		"more behind the certificate's own end": {withTrailer(cert, string(testSecret)), "does not parse"},
		"a certificate within a certificate":    {strings.Replace(cert, "-----\n", "-----\n"+other, 1), "does not parse"},
	} {
		t.Run(name, func(t *testing.T) {
			normal, err := ParseCACert(c.bundle)
			if err == nil || normal != "" {
				t.Fatal("the bundle was accepted")
			}
			if !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), string(testSecret)) {
				t.Errorf("the error does not say %q, or quotes the bundle", c.says)
			}
		})
	}
}

func TestParseCACert_keepsTheCertificatesAlone(t *testing.T) {
	cert, other, _ := newCertificates(t)
	want := cert + other
	for name, bundle := range map[string]string{
		"as openssl writes it":       want,
		"with Windows line ends":     strings.ReplaceAll(want, "\n", "\r\n"),
		"without line ends":          strings.ReplaceAll(want, "\n", ""),
		"with blank lines":           "\n\n" + strings.ReplaceAll(want, "-----\n", "-----\n\n"),
		"indented":                   "\t  " + strings.ReplaceAll(want, "\n", "\n\t  "),
		"without a line end behind":  strings.TrimSuffix(want, "\n"),
		"with white space of a form": " \v\f" + want + " ",
	} {
		t.Run(name, func(t *testing.T) {
			normal, err := ParseCACert(bundle)
			if err != nil {
				t.Fatal(err)
			}
			if normal != want {
				t.Errorf("the normal form has %d bytes, want %d", len(normal), len(want))
			}
		})
	}
}

// FuzzParseCACert holds the normal form against package pem's reading of it: the
// certificates of the bundle, in their order, and nothing else.
func FuzzParseCACert(f *testing.F) {
	cert, other, key := newCertificates(f)
	for _, seed := range []string{
		"", "trust me", cert, cert + other, key + cert, cert + key, strings.ReplaceAll(cert, "\n", ""), "# comment\n" + cert,
		strings.Replace(cert, "-----\n", "-----\nA: b\n\n", 1), cert + "-----BEGIN CERTIFICATE-----", beginCertificate + endCertificate,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, bundle string) {
		normal, err := ParseCACert(bundle)
		if err != nil {
			if normal != "" {
				t.Fatal("both a normal form and an error")
			}
			return
		}
		if again, err := ParseCACert(normal); err != nil || again != normal {
			t.Fatalf("the normal form has another one: %v", err)
		}
		accepted, err := parseCACert(bundle)
		if err != nil {
			t.Fatal(err)
		}
		rest := []byte(normal)
		for _, cert := range accepted {
			var block *pem.Block
			before := len(rest)
			block, rest = pem.Decode(rest)
			if block == nil || block.Type != "CERTIFICATE" || len(block.Headers) > 0 || string(block.Bytes) != string(cert.Raw) {
				t.Fatal("the normal form lacks a certificate")
			}
			if before-len(rest) != len(pem.EncodeToMemory(block)) {
				t.Fatal("the normal form holds more than the certificate's block")
			}
		}
		if len(rest) > 0 {
			t.Fatal("the normal form holds more than the certificates")
		}
	})
}

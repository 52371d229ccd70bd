// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"time"
)

// newCertificate returns a certificate for 127.0.0.1 that is valid until notAfter,
// and the PEM of the authority that signed it, whose key nobody keeps.
func newCertificate(notAfter time.Time) (tls.Certificate, string, error) {
	authority := certificateTemplate(1, "apic-sim authority")
	authority.IsCA = true
	authority.KeyUsage = x509.KeyUsageCertSign
	authorityKey, authorityDER, err := certify(authority, authority, nil)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	host := certificateTemplate(2, "apic-sim")
	host.NotAfter = notAfter
	host.KeyUsage = x509.KeyUsageDigitalSignature
	host.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	host.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	hostKey, hostDER, err := certify(host, authority, authorityKey)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	caCert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authorityDER})
	return tls.Certificate{Certificate: [][]byte{hostDER}, PrivateKey: hostKey}, string(caCert), nil
}

func certificateTemplate(serial int64, name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          big.NewInt(serial),
		Subject:               pkix.Name{CommonName: name},
		BasicConstraintsValid: true,
		// Clocks in testing/synctest start in the year 2000.
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:  farFuture(),
	}
}

func farFuture() time.Time { return time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC) }

// certify makes a key and certifies it with the issuer's, or with itself if
// issuerKey is nil.
func certify(template, issuer *x509.Certificate, issuerKey *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if issuerKey == nil {
		issuerKey = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), issuerKey)
	if err != nil {
		return nil, nil, err
	}
	return key, der, nil
}

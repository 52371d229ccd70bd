// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"strings"
)

const (
	certificateType  = "CERTIFICATE"
	beginCertificate = "-----BEGIN " + certificateType + "-----"
	endCertificate   = "-----END " + certificateType + "-----"

	whiteSpace = " \t\r\n\v\f"
)

// ParseCACert reads a PEM bundle of one or more certificates and returns its normal
// form, which holds the same certificates and nothing else. A bundle with anything
// but certificates and white space in it is refused, for that may be a private key
// which was pasted along. Errors complete the sentence "ca_cert ..." and never quote
// the bundle.
func ParseCACert(bundle string) (normal string, err error) {
	certs, err := parseCACert(bundle)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, cert := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: certificateType, Bytes: cert.Raw}))
	}
	return b.String(), nil
}

// parseCACert does not leave the armour to package pem, which skips what it does not
// recognise.
func parseCACert(bundle string) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	rest := strings.Trim(bundle, whiteSpace)
	for rest != "" {
		body, begins := strings.CutPrefix(rest, beginCertificate)
		encoded, after, ends := strings.Cut(body, endCertificate)
		if !begins || !ends {
			return nil, errors.New("holds something other than certificates: keep only the blocks from BEGIN CERTIFICATE to END CERTIFICATE, as does sed -n '/BEGIN CERT/,/END CERT/p' ca.pem, without comments, keys and headers")
		}
		cert, err := parseCertificate(encoded)
		if err != nil {
			return nil, errors.New("holds a certificate that does not parse")
		}
		certs = append(certs, cert)
		rest = strings.TrimLeft(after, whiteSpace)
	}
	if len(certs) == 0 {
		return nil, errors.New("holds no certificate")
	}
	return certs, nil
}

func parseCertificate(encoded string) (*x509.Certificate, error) {
	withoutSpace := strings.Join(strings.FieldsFunc(encoded, isWhiteSpace), "")
	der, err := base64.StdEncoding.Strict().DecodeString(withoutSpace)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func isWhiteSpace(r rune) bool { return strings.ContainsRune(whiteSpace, r) }

func newPool(certs []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, cert := range certs {
		pool.AddCert(cert)
	}
	return pool
}

// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"compress/flate"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
)

// transportFailure describes a failed round trip by its kind, and says what to do about it
// if that is known. It never includes err's own text: *url.Error prints the URL, which may
// hold the key.
func transportFailure(err error) Error {
	var cert *tls.CertificateVerificationError
	switch {
	case errors.Is(err, errNotLoopback):
		return Error{Reason: "is not on this host, and http would send the key over the network in plaintext", Advice: "use https"}
	case errors.As(err, &cert):
		reason, advice := certificateFailure(cert)
		return Error{Reason: reason, Advice: advice, Untrusted: true}
	default:
		return Error{Reason: transportReason(err)}
	}
}

func transportReason(err error) string {
	var (
		timeout net.Error
		dns     *net.DNSError
		header  tls.RecordHeaderError
	)
	switch {
	case errors.Is(err, context.Canceled):
		return "did not answer before the request was cancelled"
	case errors.Is(err, errAnswerTooLarge):
		return fmt.Sprintf("sent an answer of more than %d KiB", maxAnswerBytes>>10)
	case errors.Is(err, errSwitched):
		return "switched to another protocol instead of answering"
	case isCorruptGzip(err):
		return "sent an answer whose compression is broken"
	case errors.As(err, &header), errors.Is(err, http.ErrSchemeMismatch):
		return "does not speak TLS on that port"
	case errors.As(err, &dns):
		return "has a host name that does not resolve"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused the connection"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "did not answer in time"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "broke the connection off"
	default:
		return "could not be reached"
	}
}

func isUntrusted(err error) bool {
	var cert *tls.CertificateVerificationError
	return errors.As(err, &cert)
}

// certificateFailure tells a certificate that is out of date from one whose
// authority is not trusted.
func certificateFailure(failed *tls.CertificateVerificationError) (reason, advice string) {
	var invalid x509.CertificateInvalidError
	if !errors.As(failed, &invalid) || invalid.Reason != x509.Expired {
		return "showed a certificate that is not trusted", "check ca_cert"
	}
	if now := time.Now(); now.Before(invalid.Cert.NotBefore) {
		return fmt.Sprintf("showed a certificate that is not valid before %s", invalid.Cert.NotBefore.UTC().Format(time.RFC3339)), "compare this host's clock"
	}
	return fmt.Sprintf("showed a certificate that expired at %s", invalid.Cert.NotAfter.UTC().Format(time.RFC3339)), "have it renewed, or compare this host's clock"
}

func isCorruptGzip(err error) bool {
	var corrupt flate.CorruptInputError
	return errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) || errors.As(err, &corrupt)
}

// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"compress/flate"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// transportReason describes a failed round trip by its kind. It never includes
// err's own text: *url.Error prints the URL, which may hold the key.
func transportReason(err error) string {
	var (
		timeout net.Error
		dns     *net.DNSError
		cert    *tls.CertificateVerificationError
		header  tls.RecordHeaderError
	)
	switch {
	case errors.Is(err, context.Canceled):
		return "was not heard out because the request was cancelled"
	case errors.Is(err, errAnswerTooLarge):
		return fmt.Sprintf("sent an answer of more than %d KiB", maxAnswerBytes>>10)
	case isCorruptGzip(err):
		return "sent an answer whose compression is broken"
	case errors.As(err, &cert):
		return "showed a certificate that is not trusted; check ca_cert and the certificate's dates"
	case errors.As(err, &header):
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

func isCorruptGzip(err error) bool {
	var corrupt flate.CorruptInputError
	return errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) || errors.As(err, &corrupt)
}

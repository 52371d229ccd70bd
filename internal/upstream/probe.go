// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"time"
)

// Reach is what Probe found out about a service's address.
type Reach struct {
	// Proxied says that requests go through a proxy, which resolves the host's name.
	Proxied bool
	// Failure says what the service did, as in Error, if there was no answer, and Advice
	// what to do about it; it may be empty.
	Failure, Advice string
	// Untrusted says that Failure is about the certificate.
	Untrusted bool
	// Status is the answer's HTTP status, 0 if there was none.
	Status int
	// CertificateEnds is when the first certificate of the chain ends that vouches for the
	// service. It is zero without TLS, and for one that is not trusted.
	CertificateEnds time.Time
	// Dated says that the answer has a date. ClockSkew is how far this host's clock is
	// ahead of that date, in whole seconds, negative if it is behind.
	Dated     bool
	ClockSkew time.Duration
}

// Probe sends HEAD / to the host of an address, over a transport that trusts caPEM, without
// a secret. It follows no redirect, and any answer will do. The error says what is wrong with
// caPEM or the address.
func (t *Transports) Probe(ctx context.Context, address, caPEM string) (Reach, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return Reach{}, errors.New("does not parse")
	}
	made, err := t.New(caPEM)
	if err != nil {
		return Reach{}, err
	}
	defer made.CloseIdleConnections()
	var chains [][]*x509.Certificate
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		TLSHandshakeDone: func(state tls.ConnectionState, err error) {
			if err == nil {
				chains = state.VerifiedChains // A proxy's comes before the service's.
			}
		},
	})
	root := url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/"}
	r, err := http.NewRequestWithContext(traced, http.MethodHead, root.String(), nil)
	if err != nil {
		return Reach{}, errors.New("does not parse")
	}
	reach := Reach{Proxied: t.isProxied(r)}
	resp, err := made.RoundTrip(r)
	if err != nil {
		failed := transportFailure(err)
		reach.Failure, reach.Advice, reach.Untrusted = failed.Reason, failed.Advice, failed.Untrusted
		return reach, nil
	}
	defer resp.Body.Close()
	reach.Status, reach.CertificateEnds = resp.StatusCode, chainsEnd(chains)
	_, undated := http.ParseTime(resp.Header.Get("Date"))
	reach.Dated, reach.ClockSkew = undated == nil, (&Answer{header: resp.Header}).ClockSkew()
	return reach, nil
}

// Resolve looks up the host of an address, unless a proxy resolves it. The failure says
// what the service did, as in Error; it is empty if the host resolves.
func (t *Transports) Resolve(ctx context.Context, address string) (proxied bool, failure string) {
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, address, nil)
	if err != nil {
		return false, "has an address that does not parse"
	}
	if t.isProxied(r) {
		return true, ""
	}
	lookup := t.LookupHost
	if lookup == nil {
		lookup = net.DefaultResolver.LookupHost
	}
	if _, err := lookup(ctx, r.URL.Hostname()); err != nil {
		return false, transportReason(err)
	}
	return false, ""
}

func (t *Transports) isProxied(r *http.Request) bool {
	if r.URL.Scheme != "https" {
		return false // That is this host.
	}
	proxy, err := t.proxy(r)
	return err == nil && proxy != nil
}

// chainsEnd is when the last of the chains expires.
func chainsEnd(chains [][]*x509.Certificate) (end time.Time) {
	for _, chain := range chains {
		first := slices.MinFunc(chain, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
		if first.NotAfter.After(end) {
			end = first.NotAfter
		}
	}
	return end
}

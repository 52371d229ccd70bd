// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"time"
)

// call keeps account of the attempts of one request.
type call struct {
	// once is the request's Once.
	once     bool
	attempts int
	started  time.Time
	// connecting and connected tell how far the last attempt got. A transport
	// other than net/http's may report neither.
	connecting, connected bool
	// outcomeUnknown says that an attempt may have had its effect though the
	// service did not say so.
	outcomeUnknown bool
	// requestID is what the answer calls the request, if that is fit to print.
	requestID string
}

type callKey struct{}

// begin returns a call and the context that carries it through the attempts.
func begin(ctx context.Context, once bool) (*call, context.Context) {
	c := &call{once: once, started: time.Now()}
	ctx = context.WithValue(ctx, callKey{}, c)
	return c, httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// The transport looks for another connection by itself if it wrote nothing to
		// the first one, which then no longer counts.
		GetConn: func(string) { c.connecting, c.connected = true, false },
		GotConn: func(httptrace.GotConnInfo) { c.connected = true },
	})
}

func callOf(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

// attempt takes note that another attempt begins.
func (c *call) attempt() {
	c.attempts++
	c.connecting, c.connected = false, false
}

// mayHaveActed says whether an attempt that did not succeed may have had its
// effect all the same. A 408 and a 5xx may come from a gateway that lost an
// answer; other refusals were given in place of acting.
func (c *call) mayHaveActed(resp *http.Response, err error) bool {
	if err != nil {
		return !c.neverSent(err)
	}
	return resp.StatusCode == http.StatusRequestTimeout || resp.StatusCode >= 500
}

func (c *call) neverSent(err error) bool {
	var failed *net.OpError
	return c.connecting && !c.connected || errors.As(err, &failed) && failed.Op == "dial"
}

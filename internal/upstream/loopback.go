// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"errors"
	"net/netip"
	"syscall"
)

var errNotLoopback = errors.New("not a loopback address")

// loopbackOnly is the Control of a net.Dialer that may reach this host only. It is
// asked about each address that a name has, before the connection is made: what
// localhost stands for is up to the resolver.
func loopbackOnly(_, address string, _ syscall.RawConn) error {
	peer, err := netip.ParseAddrPort(address)
	if err != nil || !peer.Addr().IsLoopback() {
		return errNotLoopback
	}
	return nil
}

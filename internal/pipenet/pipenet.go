// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Package pipenet is a network in memory for tests, on which time passes only when
// everybody waits: testing/synctest does not wait for sockets.
package pipenet

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
)

// Network is a network of one host, which answers at any address.
type Network struct {
	conns  chan net.Conn
	closed chan struct{}
	close  func()
	server *http.Server
}

// Serve serves handler until Close.
func Serve(handler http.Handler) *Network {
	n := &Network{conns: make(chan net.Conn), closed: make(chan struct{}), server: &http.Server{Handler: handler}}
	n.close = sync.OnceFunc(func() { close(n.closed) })
	go func() { _ = n.server.Serve(listener{n}) }()
	return n
}

// Close ends the host and all connections to it.
func (n *Network) Close() { _ = n.server.Close() }

// listener is the host's side.
type listener struct{ *Network }

func (l listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l listener) Close() error {
	l.close()
	return nil
}

func (l listener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// Line is one client's way into a network. It can be cut, as when the client's
// process is killed.
type Line struct {
	network *Network

	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

// Line returns a new way in.
func (n *Network) Line() *Line { return &Line{network: n} }

// ErrCut is the error of a line that was cut.
var ErrCut = errors.New("the line is cut")

// Dial connects to the network's host, as a DialContext for an http.Transport.
func (l *Line) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	l.mu.Lock()
	if l.cut {
		l.mu.Unlock()
		return nil, &net.OpError{Op: "dial", Net: "pipe", Err: ErrCut}
	}
	l.conns = append(l.conns, client)
	l.mu.Unlock()
	select {
	case l.network.conns <- server:
		return client, nil
	case <-l.network.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Sever breaks off what is under way and lets nothing through any more.
func (l *Line) Sever() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for _, conn := range l.conns {
		_ = conn.Close()
	}
}

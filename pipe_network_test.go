// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
)

// pipeNetwork is a network of one host, in memory, on which time passes only when
// everybody waits: testing/synctest does not wait for sockets.
type pipeNetwork struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	server *http.Server
}

// servePipes serves handler to all who dial, whatever the address.
func servePipes(handler http.Handler) *pipeNetwork {
	n := &pipeNetwork{conns: make(chan net.Conn), closed: make(chan struct{}), server: &http.Server{Handler: handler}}
	go func() { _ = n.server.Serve(n) }()
	return n
}

// line is one client's way into the network. It can be cut, as when the client's
// process is killed.
type line struct {
	network *pipeNetwork

	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

var errCut = errors.New("the line is cut")

func (l *line) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	l.mu.Lock()
	if l.cut {
		l.mu.Unlock()
		return nil, errCut
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

// sever breaks off what is under way and lets nothing through any more.
func (l *line) sever() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for _, conn := range l.conns {
		_ = conn.Close()
	}
}

func (n *pipeNetwork) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *pipeNetwork) Close() error {
	n.once.Do(func() { close(n.closed) })
	return nil
}

func (n *pipeNetwork) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

func (n *pipeNetwork) stop() { _ = n.server.Close() }

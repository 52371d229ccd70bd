// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// switchProtocols answers a request by switching to another protocol, in which it says
// nothing until the test ends.
func switchProtocols(t *testing.T) func(net.Conn) {
	return func(conn net.Conn) {
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		}
	}
}

// TestCaller_endsAfterASwitchOfProtocols has a service take the connection over, which
// net/http then leaves to its caller: neither a timeout nor a cancellation ends a read.
func TestCaller_endsAfterASwitchOfProtocols(t *testing.T) {
	url := newRawService(t, switchProtocols(t))
	done := make(chan error, 1)
	go func() {
		_, err := put(t.Context(), newCaller(t, url, 2), url, false)
		done <- err
	}()
	select {
	case err := <-done:
		failed := failure(t, err)
		if failed.Outcome != Unavailable || !failed.OutcomeUnknown || failed.Attempts != 1 {
			t.Errorf("the error is %+v", failed)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("a call whose attempts end after a second has not ended in five")
	}
}

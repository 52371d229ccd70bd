// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"
)

// answerBehind answers each request on a connection with what belongs to the one before
// it there, as a gateway does that once answered twice.
func answerBehind(conn net.Conn) {
	defer conn.Close()
	requests := bufio.NewReader(conn)
	var due string
	for {
		r, err := http.ReadRequest(requests)
		if err != nil {
			return
		}
		asked := r.URL.Query().Get("config")
		if due == "" {
			due = asked
		}
		if _, err := fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(due), due); err != nil {
			return
		}
		due = asked
	}
}

func TestTransports_surplusAnswerStaysWithItsConfig(t *testing.T) {
	url := newRawService(t, answerBehind)
	var transports Transports
	for _, config := range []string{"one", "another", "third"} {
		transport := newTransport(t, &transports, "")
		c, err := NewCaller(Options{Service: "test service", URL: url, URLField: "test_url", Transport: transport, RequestTimeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		a, err := c.Send(t.Context(), Request{Method: http.MethodPost, URL: url + "/?config=" + config}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if string(a.Body) != config {
			t.Errorf("the config %q was answered what belongs to %q", config, a.Body)
		}
	}
}

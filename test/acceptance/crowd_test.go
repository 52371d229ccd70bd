// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// slowestRead is longer than any read takes that does not hang.
const slowestRead = 30 * time.Second

// reading is one read of a token: what was answered, and when.
type reading struct {
	began  time.Time
	took   time.Duration
	secret *api.Secret
	err    error
}

func (r reading) tokenID() string { return r.secret.Data["token_id"].(string) }

// newReaders are clients of one server that each keep a connection.
func (s *stack) newReaders(count int) []*api.Client {
	s.Helper()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 0, count
	s.Cleanup(transport.CloseIdleConnections)
	config := s.client.CloneConfig()
	config.HttpClient = &http.Client{Transport: transport}
	readers := make([]*api.Client, count)
	for i := range readers {
		reader, err := api.NewClient(config)
		s.check(err)
		reader.SetToken(s.client.Token())
		readers[i] = reader
	}
	return readers
}

func readOnce(reader *api.Client, name string) reading {
	ctx, cancel := context.WithTimeout(context.Background(), slowestRead)
	defer cancel()
	r := reading{began: time.Now()}
	r.secret, r.err = reader.Logical().ReadWithContext(ctx, "apic/token/"+name)
	r.took = time.Since(r.began)
	return r
}

// rush has clients that begin in the same moment read some times each, from one
// config after the other.
func (s *stack) rush(clients, each int, names ...string) []reading {
	s.Helper()
	start := make(chan struct{})
	readings := make([]reading, clients*each)
	var all sync.WaitGroup
	for i, reader := range s.newReaders(clients) {
		all.Go(func() {
			<-start
			for j := range each {
				readings[i*each+j] = readOnce(reader, names[(i+j)%len(names)])
			}
		})
	}
	close(start)
	all.Wait()
	return readings
}

// crowd has clients read a token at a pace until stop is called, which returns
// what they got.
func (s *stack) crowd(clients int, pace time.Duration, name string) (stop func() []reading) {
	s.Helper()
	var reads []func() reading
	for _, reader := range s.newReaders(clients) {
		reads = append(reads, func() reading { return readOnce(reader, name) })
	}
	leave := s.crowdOf(pace, reads)
	return func() []reading { return slices.Concat(leave()...) }
}

// crowdOf has each reader read at a pace until stop is called, which returns what
// each of them got.
func (s *stack) crowdOf(pace time.Duration, reads []func() reading) (stop func() [][]reading) {
	end := make(chan struct{})
	perReader := make([][]reading, len(reads))
	var all sync.WaitGroup
	for i, read := range reads {
		all.Go(func() {
			tick := time.NewTicker(pace)
			defer tick.Stop()
			for {
				perReader[i] = append(perReader[i], read())
				select {
				case <-tick.C:
				case <-end:
					return
				}
			}
		})
	}
	leave := sync.OnceFunc(func() {
		close(end)
		all.Wait()
	})
	s.Cleanup(leave)
	return func() [][]reading {
		leave()
		return perReader
	}
}

// readOften reads so often that a crowd beside it has read many times too.
func (s *stack) readOften(name string) {
	s.Helper()
	for range 100 {
		s.readToken(name)
	}
}

// requireAllAnswered fails if a read did. It prints one error of many.
func requireAllAnswered(t *testing.T, readings []reading) {
	t.Helper()
	if failures := failed(readings); len(failures) > 0 {
		t.Fatalf("%d of %d reads failed, the first with: %v", len(failures), len(readings), failures[0].err)
	}
}

func failed(readings []reading) (failures []reading) {
	for _, r := range readings {
		if r.err != nil {
			failures = append(failures, r)
		}
	}
	return failures
}

func slowest(readings []reading) (longest time.Duration) {
	for _, r := range readings {
		longest = max(longest, r.took)
	}
	return longest
}

// dueAt is the moment from which a reader gets a newer token, for one that was
// answered just now. It is late by less than a second and the time the answer took,
// because ttl is rounded up.
func (s *stack) dueAt(secret *api.Secret) time.Time {
	s.Helper()
	ttl, err := secret.Data["ttl"].(json.Number).Int64()
	s.check(err)
	return time.Now().Add(time.Duration(ttl) * time.Second)
}

// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

func TestBackoffID_isTheKeyAndItsDestination(t *testing.T) {
	base := config{TokenService: tokenservice.Login, TokenURL: "https://a.example/", CACert: "ca", APIKey: "key"}
	same := base
	same.Region, same.APIURL, same.ClientID, same.ClientSecret, same.MaxRetries, same.Revision = "r", "u", "c", "s", 1, "2"
	if newBackoffID(&same) != newBackoffID(&base) {
		t.Error("what anybody may change makes another id")
	}
	for name, change := range map[string]func(*config){
		"the key":     func(c *config) { c.APIKey = "another" },
		"the service": func(c *config) { c.TokenService = tokenservice.IAM },
		"the URL":     func(c *config) { c.TokenURL = "https://b.example/" },
		"the CA":      func(c *config) { c.CACert = "another" },
		"the border":  func(c *config) { c.CACert, c.APIKey = "cak", "ey" },
	} {
		other := base
		change(&other)
		if newBackoffID(&other) == newBackoffID(&base) {
			t.Errorf("another id is missing for another one of %s", name)
		}
	}
}

// failOnce records a failure of a key that nobody holds afterwards.
func (b *backoffs) failOnce(t *testing.T, key string, err error) {
	t.Helper()
	backoff, release := b.acquire(newBackoffID(&config{APIKey: key}))
	failing := func(context.Context) (*tokenservice.Token, error) { return nil, err }
	source := tokensource.New(tokensource.Options{Exchanger: tokensource.ExchangeFunc(failing), Backoff: backoff, Release: release})
	defer source.Close()
	if err := source.Replace(t.Context()); err == nil {
		t.Fatal("the exchange succeeded")
	}
}

func (b *backoffs) until(key string) time.Time {
	backoff, release := b.acquire(newBackoffID(&config{APIKey: key}))
	defer release()
	return backoff.Until()
}

func TestBackoffs_keepAFailureThatNobodyHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b backoffs
		refused := &upstream.Error{Outcome: upstream.Refused}
		b.failOnce(t, "key", refused)
		until := time.Now().Add(5 * time.Second)
		if got := b.until("key"); !got.Equal(until) {
			t.Fatalf("the backoff lasts until %s", got)
		}
		time.Sleep(time.Until(until) + failureMemory - 1)
		b.failOnce(t, "key", refused)
		if got := time.Until(b.until("key")); got != 10*time.Second {
			t.Errorf("the second failure in a row is backed off from for %s", got)
		}
		time.Sleep(10*time.Second + failureMemory)
		b.failOnce(t, "key", refused)
		if got := time.Until(b.until("key")); got != 5*time.Second {
			t.Errorf("after a long time without any a failure is backed off from for %s", got)
		}
	})
}

func TestBackoffs_keepNothingOfKeysThatDidNotFail(t *testing.T) {
	var b backoffs
	for i := range 100 {
		_, release := b.acquire(newBackoffID(&config{APIKey: fmt.Sprint("key-", i)}))
		_, again := b.acquire(newBackoffID(&config{APIKey: fmt.Sprint("key-", i)}))
		release()
		if len(b.held) != 1 {
			t.Fatalf("%d are held by one config", len(b.held))
		}
		again()
	}
	if len(b.held)+len(b.idle) != 0 {
		t.Fatalf("%d and %d are left", len(b.held), len(b.idle))
	}
}

// TestBackoffs_ofMadeUpKeysAreBounded floods the memory beside a key that is held and
// one that is not and whose backoff is long.
func TestBackoffs_ofMadeUpKeysAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b backoffs
		held, release := b.acquire(newBackoffID(&config{APIKey: "held"}))
		defer release()
		b.failOnce(t, "held", &upstream.Error{})
		b.failOnce(t, "first", &upstream.Error{})
		b.failOnce(t, "long", &upstream.Error{RetryAfter: time.Hour})
		for i := range 2 * maxIdleBackoffs {
			time.Sleep(time.Millisecond)
			b.failOnce(t, fmt.Sprint("made-up-", i), &upstream.Error{})
		}
		if got := len(b.idle); got != maxIdleBackoffs {
			t.Errorf("%d are kept", got)
		}
		if held.Until().IsZero() || b.until("long").IsZero() {
			t.Error("what still counts was displaced")
		}
		if !b.until("first").IsZero() {
			t.Error("what ended first was kept")
		}
		time.Sleep(2 * time.Hour)
		b.until("held")
		if got := len(b.idle); got != 0 {
			t.Errorf("%d are kept for good", got)
		}
	})
}

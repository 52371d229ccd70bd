// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokensource

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestStatus_ofANewSourceIsEmpty(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		if got := s.Status(); got != (Status{}) {
			t.Fatalf("status is %+v", got)
		}
		if svc.count() != 0 {
			t.Fatal("telling the status made an exchange")
		}
	})
}

func TestStatus_hasTheTokenUntilItsEnd(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, _ *service) {
		unread := mustUnread(t, s)
		at := time.Now()
		time.Sleep(time.Hour - 1)
		if got := s.Status(); got.Token != unread || !got.LastSuccess.Equal(at) || got.LastError != nil || got.Failures != 0 {
			t.Fatalf("status is %+v", got)
		}
		time.Sleep(time.Nanosecond)
		if got := s.Status(); got.Token != nil || !got.LastSuccess.Equal(at) {
			t.Fatalf("after the token's end status is %+v", got)
		}
	})
}

// TestStatus_countsFailuresUntilASuccess: the last error is kept after a success.
func TestStatus_countsFailuresUntilASuccess(t *testing.T) {
	bubble(t, func(t *testing.T, s *Source, svc *service) {
		svc.err = errDown
		var failedAt time.Time
		for failures := 1; failures <= 3; failures++ {
			if _, err := s.Read(t.Context(), 0); !errors.Is(err, errDown) {
				t.Fatalf("error is %v", err)
			}
			failedAt = time.Now()
			got := s.Status()
			if got.Failures != failures || got.LastError != errDown || !got.LastErrorAt.Equal(failedAt) || !got.RetryAt.After(failedAt) {
				t.Fatalf("after %d failures status is %+v", failures, got)
			}
			time.Sleep(time.Until(got.RetryAt))
		}
		svc.set(func(svc *service) { svc.err = nil })
		mustRead(t, s)
		got := s.Status()
		if got.Failures != 0 || !got.RetryAt.IsZero() || !got.LastSuccess.Equal(time.Now()) {
			t.Errorf("after a success status is %+v", got)
		}
		if got.LastError != errDown || !got.LastErrorAt.Equal(failedAt) {
			t.Errorf("after a success the last error is %v of %v", got.LastError, got.LastErrorAt)
		}
	})
}

// TestStatus_countsEveryKindOfFailure: those in the background count like those of
// callers.
func TestStatus_countsEveryKindOfFailure(t *testing.T) {
	for name, fail := range map[string]func(*testing.T, *Source){
		"a background replacement": func(t *testing.T, s *Source) {
			time.Sleep(time.Until(s.Current().refreshAt()))
			synctest.Wait()
		},
		"a dedicated token": func(t *testing.T, s *Source) {
			if _, err := s.Dedicated(t.Context(), 0); err == nil {
				t.Fatal("the exchange succeeded")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Source, svc *service) {
				first := mustRead(t, s)
				svc.set(func(svc *service) { svc.err = errRefused })
				fail(t, s)
				got := s.Status()
				if got.Failures != 1 || got.LastError != errRefused || !got.LastErrorAt.Equal(time.Now()) {
					t.Errorf("status is %+v", got)
				}
				if got.Token != first.IssuedToken || !got.LastSuccess.Equal(first.IssuedAt) {
					t.Errorf("of the current token status tells %+v", got)
				}
			})
		})
	}
}

// TestStatus_newSourceKnowsItsCurrentToken: it knows nothing else of the past but what
// its Backoff remembers.
func TestStatus_newSourceKnowsItsCurrentToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := &service{life: time.Hour}
		before := New(Options{Exchanger: ExchangeFunc(svc.exchange)})
		unread := mustUnread(t, before)
		svc.set(func(svc *service) { svc.err = errDown })
		if _, err := before.Dedicated(t.Context(), 0); err == nil {
			t.Fatal("the exchange succeeded")
		}
		time.Sleep(time.Minute)
		after := New(Options{Exchanger: ExchangeFunc(svc.exchange), Current: before.Current()})
		defer after.Close()
		before.Close()
		got := after.Status()
		if got.Token == nil || got.Token.ID != unread.ID || !got.LastSuccess.Equal(unread.IssuedAt) {
			t.Errorf("status is %+v", got)
		}
		if got.LastError != nil || got.Failures != 0 {
			t.Errorf("of the old source's failure status tells %v", got.LastError)
		}
	})
}

// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokensource

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

func TestRateLimit_holdsForAsLongAsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var limit RateLimit
		limit.Record(&upstream.Error{Status: 429, RetryAfter: time.Minute, OutcomeUnknown: true})
		time.Sleep(20 * time.Second)
		var one, another Backoff
		one.Under(&limit)
		another.Under(&limit)
		err := one.Check()
		var backoff *BackoffError
		var failed *upstream.Error
		if !errors.As(err, &backoff) || time.Until(backoff.RetryAt) != 40*time.Second {
			t.Fatalf("the error is %v", err)
		}
		if !errors.As(err, &failed) || failed.RetryAfter != 40*time.Second || failed.OutcomeUnknown {
			t.Errorf("of the call that was not made it tells %+v", failed)
		}
		limit.Record(fmt.Errorf("wrapped: %w", err)) // Else each call would extend it.
		limit.Record(&upstream.Error{Status: 429, RetryAfter: time.Second})
		limit.Record(nil)
		one.Record(nil)
		if got := time.Until(another.Until()); got != 40*time.Second {
			t.Errorf("it ends in %s", got)
		}
		time.Sleep(40 * time.Second)
		if err := errors.Join(one.Check(), another.Check(), limit.Check()); err != nil || !limit.Until().IsZero() {
			t.Errorf("after its end: %v, until %s", err, limit.Until())
		}
	})
}

// TestRateLimit_isAnAnswerOf429 has failures that are those of one key alone.
func TestRateLimit_isAnAnswerOf429(t *testing.T) {
	var limit RateLimit
	for _, err := range []error{
		nil, errors.New("another"), &upstream.Error{Status: 429},
		&upstream.Error{Status: 503, RetryAfter: time.Hour}, &upstream.Error{RetryAfter: time.Hour},
	} {
		limit.Record(err)
	}
	if err := limit.Check(); err != nil {
		t.Error(err)
	}
}

func TestRateLimit_countsBesideAKeysOwnBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var limit RateLimit
		var key Backoff
		key.Under(&limit)
		key.Record(&upstream.Error{Outcome: upstream.Refused, Reason: "refused the key"})
		limit.Record(&upstream.Error{Status: 429, RetryAfter: time.Minute})
		var backoff *BackoffError
		if err := key.Check(); !errors.As(err, &backoff) || backoff.Last.(*upstream.Error).Outcome != upstream.Refused || time.Until(backoff.RetryAt) != time.Minute {
			t.Errorf("the error is %v", err)
		}
		key.Record(&upstream.Error{Status: 429, RetryAfter: time.Hour})
		if got := time.Until(limit.Until()); got != time.Hour {
			t.Errorf("a key's 429 limits the others for %s", got)
		}
	})
}

// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

const (
	// youngKeyTime is how long after a rotation the new key may still be refused by
	// parts of IBM Cloud that do not know it yet, though others have accepted it. IBM
	// documents no figure.
	youngKeyTime = 2 * time.Minute

	// youngKeyWait is the time between attempts with such a key.
	youngKeyWait = 2 * time.Second

	// youngKeyTimeout bounds them, so that a caller gets the refusal in the end.
	youngKeyTimeout = 40 * time.Second
)

// retryRefusals is exchange that retries a refusal while the key is young. since is when the
// key came into use, maybe by another node's clock. inUse says whether it is in use: the
// trial of a candidate is to be refused at once.
func retryRefusals(exchange tokensource.ExchangeFunc, since time.Time, inUse func() bool) tokensource.ExchangeFunc {
	return func(ctx context.Context) (*tokenservice.Token, error) {
		deadline := time.Now().Add(youngKeyTimeout)
		for {
			token, err := exchange(ctx)
			if !isRefused(err) || !inUse() {
				return token, err
			}
			now := time.Now()
			if now.Sub(since).Abs() > youngKeyTime || now.Add(youngKeyWait).After(deadline) || !sleep(ctx, youngKeyWait) {
				return nil, err
			}
		}
	}
}

// isRefused says that a service understood a request and declined it.
func isRefused(err error) bool {
	var failed *upstream.Error
	return errors.As(err, &failed) && failed.Outcome == upstream.Refused
}

// sleep says whether the time has passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

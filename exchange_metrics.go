// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/metrics"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// counted makes an exchange and counts its outcome and duration.
func counted(ctx context.Context, m *metrics.Metrics, kind tokenservice.Kind, exchange func() (*tokenservice.Token, error)) (*tokenservice.Token, error) {
	started := time.Now()
	outcome := metrics.ExchangeError // It is that of a panic.
	defer func() { m.Exchanged(string(kind), outcome, time.Since(started)) }()
	token, err := exchange()
	outcome = exchangeOutcome(ctx, err)
	return token, err
}

// exchangeOutcome looks at ctx too, because the services call a cancelled request
// unavailable.
func exchangeOutcome(ctx context.Context, err error) metrics.ExchangeOutcome {
	var failed *upstream.Error
	known := errors.As(err, &failed)
	switch {
	case err == nil:
		return metrics.ExchangeSuccess
	case known && failed.Outcome == upstream.Refused:
		return metrics.ExchangeRefused
	case errors.Is(ctx.Err(), context.Canceled):
		return metrics.ExchangeCancelled
	case known, errors.Is(err, context.DeadlineExceeded):
		return metrics.ExchangeUnavailable
	default:
		return metrics.ExchangeError
	}
}

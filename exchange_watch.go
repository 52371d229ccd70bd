// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
)

// exchangeWatch tells when a config's exchanges begin to fail and when they work
// again, and when clocks differ and agree again, and nothing in between.
type exchangeWatch struct {
	name   string
	events *events
	vault  *framework.Backend
	// active is set while the config is the stored one. What fails before that is the
	// response to the write that made it, and what fails after that is of a key or a
	// destination that may be out of use.
	active atomic.Bool
	// used is set once the config is the stored one, and stays.
	used atomic.Bool
	// tokenID is the id of the stored token of a config whose keys work once.
	tokenID atomic.Value
	failing atomic.Bool
	skewed  atomic.Bool
}

// observe makes an exchange and takes note of its outcome.
func (w *exchangeWatch) observe(ctx context.Context, exchange tokensource.ExchangeFunc) (*tokenservice.Token, error) {
	token, err := exchange(ctx)
	if w.active.Load() {
		w.note(ctx, err)
		w.compareClocks(token)
	}
	return token, err
}

func (w *exchangeWatch) note(ctx context.Context, err error) {
	if err == nil {
		if w.failing.CompareAndSwap(true, false) {
			w.vault.Logger().Info("exchanges work again", "config", w.name)
		}
		return
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return // The mount is being unloaded, which says nothing about the service.
	}
	if w.failing.CompareAndSwap(false, true) {
		w.vault.Logger().Warn("exchanges fail; the current token is served until shortly before its end", "config", w.name, "reason", err)
		w.events.send(ctx, eventExchangeFails, w.name)
	}
}

func (w *exchangeWatch) compareClocks(token *tokenservice.Token) {
	if token == nil {
		return
	}
	differ := token.ClockSkew != 0
	if !w.skewed.CompareAndSwap(!differ, differ) {
		return
	}
	if differ {
		w.vault.Logger().Warn("this host's clock differs from the token service's; set it right", "config", w.name, "ahead", token.ClockSkew.Round(time.Second))
		return
	}
	w.vault.Logger().Info("this host's clock agrees with the token service's again", "config", w.name)
}

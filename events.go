// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// eventTimeout bounds the call to Vault that an event costs.
const eventTimeout = 5 * time.Second

// eventType names what happened, as a subscriber asks for it.
type eventType string

const (
	eventConfigWrite   eventType = "apic/config-write"
	eventConfigDelete  eventType = "apic/config-delete"
	eventConfigRotate  eventType = "apic/config-rotate"
	eventRotateFailed  eventType = "apic/config-rotate-fail"
	eventExchangeFails eventType = "apic/exchange-fail"
)

// modifies says whether what is stored is another thing after the event.
func (t eventType) modifies() bool { return t != eventRotateFailed && t != eventExchangeFails }

// events tells what happens to Vault's subscribers.
type events struct{ vault *framework.Backend }

// send tells subscribers what happened to a config. It outlives the request
// that it is about, and a Vault without subscribers or events is no failure.
func (e *events) send(ctx context.Context, t eventType, name string, more ...string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), eventTimeout)
	defer cancel()
	path := configStoragePrefix + name
	metadata := append([]string{
		logical.EventMetadataPath, path,
		logical.EventMetadataDataPath, path,
		logical.EventMetadataOperation, t.operation(),
		logical.EventMetadataModified, strconv.FormatBool(t.modifies()),
		"name", name,
	}, more...)
	err := logical.SendEvent(ctx, e.vault, string(t), metadata...)
	if err != nil && !errors.Is(err, framework.ErrNoEvents) {
		e.vault.Logger().Debug("event not sent", "type", t, "config", name, "reason", err)
	}
}

// operation is the type without the engine's name.
func (t eventType) operation() string { return string(t[len(operationPrefix)+1:]) }

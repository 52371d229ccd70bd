// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// replicationStateMaxAge is how old an answer of ReplicationState may be. A node
// that loses its role meanwhile is still refused by storage when it writes.
const replicationStateMaxAge = time.Second

// systemView answers ReplicationState from memory. The framework asks it on
// every request, and to a plugin each question is a gRPC round trip to Vault.
type systemView struct {
	logical.SystemView
	last atomic.Pointer[observedState]
}

type observedState struct {
	state consts.ReplicationState
	at    time.Time
}

// ReplicationState is Vault's answer, at most replicationStateMaxAge old.
func (v *systemView) ReplicationState() consts.ReplicationState {
	if last := v.last.Load(); last != nil && time.Since(last.at) < replicationStateMaxAge {
		return last.state
	}
	observed := &observedState{state: v.SystemView.ReplicationState(), at: time.Now()}
	v.last.Store(observed)
	return observed.state
}

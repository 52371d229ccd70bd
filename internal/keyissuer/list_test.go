// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer_test

import (
	"fmt"
	"testing"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

func TestList_isAllKeysOfTheIdentityOnAllPages(t *testing.T) {
	for name, on := range map[string]func(*testing.T, int, func(*testing.T, *ground)){"IAM": onGround, "platform": onPlatform} {
		t.Run(name, func(t *testing.T) {
			on(t, 0, func(t *testing.T, g *ground) {
				g.sim.AddLimitedKey("of-somebody-else", apicsim.KeyOptions{IAMID: "IBMid-else"})
				for i := range 120 { // More than may be found by a name.
					g.sim.AddKey(fmt.Sprint("another-", i))
				}
				listed, err := g.session.List(t.Context(), g.own)
				if err != nil || len(listed) != 121 || listed[0].ID != g.key().ID || listed[0].Identity != g.own.Identity {
					t.Errorf("%d are listed, error %v", len(listed), err)
				}
			})
		})
	}
}

// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// TestWhateverStepARotationDiesAtOneKeyIsLeft is the crash matrix: at each step of
// a rotation, before it takes effect and after, the plugin is killed, or the step
// fails. Which key is left is what docs/rotation.md says.
func TestWhateverStepARotationDiesAtOneKeyIsLeft(t *testing.T) {
	t.Parallel()
	documented, err := os.ReadFile("../../docs/rotation.md")
	if err != nil {
		t.Fatal(err)
	}
	s, gate := newSteppedStack(t)
	s.auditTo("audit.log")
	for _, at := range rotationSteps() {
		row := fmt.Sprintf("| %s |", at)
		for _, h := range harmsAt(at) {
			t.Run(h.String(), func(t *testing.T) {
				row += " " + s.in(t).sufferDuringRotation(gate, h, fmt.Sprintf("case-%d", len(gate.keys))) + " |"
			})
		}
		if !strings.Contains(string(documented), row+"\n") {
			t.Errorf("docs/rotation.md lacks the row\n%s", row)
		}
	}

	if len(gate.entries) == 0 || len(gate.keys) < 4*len(rotationSteps()) {
		t.Fatalf("only %d write-ahead entries and %d keys came by", len(gate.entries), len(gate.keys))
	}
	entries := strings.Join(gate.entries, "\n")
	log, audit := s.fileContent("vault.log"), s.fileContent("audit.log")
	for key := range gate.keys {
		for what, text := range map[string]string{"a write-ahead entry": entries, "the server's log": log, "the audit log": audit} {
			if occurs(text, key) {
				t.Fatalf("%s holds an API key", what)
			}
		}
	}
}

// harmsAt are in the order of the table's columns.
func harmsAt(at step) []harm {
	return []harm{{step: at, kill: true}, {step: at}, {step: at, after: true, kill: true}, {step: at, after: true}}
}

func (h harm) String() string {
	when, what := "before", "fails"
	if h.after {
		when = "after"
	}
	if h.kill {
		what = "killed"
	}
	return fmt.Sprintf("%s %s, %s", when, h.step, what)
}

// sufferDuringRotation returns which key is left once everything is settled.
func (s *stack) sufferDuringRotation(gate *stepGate, h harm, name string) string {
	s.Helper()
	identity, key := "IBMid-"+name, "canary-"+name+"-"+s.key
	s.sim.AddLimitedKey(key, apicsim.KeyOptions{IAMID: identity})
	s.writeConfig(name, map[string]any{"api_key": key, "iam_url": s.service.URL()})
	gate.arm(&h)
	_, err := s.rotate(name)
	if !gate.disarm() {
		s.Fatalf("the rotation never came to the step (its error was %v)", err)
	}
	if h.kill && err == nil {
		// Vault was quick to see the plugin end, and gave the request to the next one, which rotated the key anew.
		return s.sufferDuringRotation(gate, h, name+"-again")
	}
	var live []apicsim.KeyInfo
	// What cannot be cleaned up at once is seen to at Vault's next tick, within a minute.
	settled := s.until(2*time.Minute, nil, func() bool {
		config, err := s.client.Logical().Read("apic/config/" + name)
		live = s.liveKeysOf(identity)
		return err == nil && len(live) == 1 && (configKeyID(config) == live[0].ID || configKeyID(config) == "" && !live[0].CreatedByAPI)
	})
	if !settled {
		s.Fatalf("IAM holds %d keys, and not just the stored one", len(live))
	}
	secret, err := s.client.Logical().Write("apic/token/"+name, nil)
	s.check(err)
	if seller := s.buyerOf(secret.Data["token_id"].(string)); seller != live[0].KeyID {
		s.Fatalf("the token was bought with another key than the one that IAM holds")
	}
	if live[0].CreatedByAPI {
		return "new"
	}
	return "old"
}

func (s *stack) liveKeysOf(identity string) []apicsim.KeyInfo {
	return slices.DeleteFunc(s.sim.Keys(), func(key apicsim.KeyInfo) bool {
		return key.IAMID != identity || !key.DeletedAt.IsZero()
	})
}

// buyerOf is the digest of the key that bought a token.
func (s *stack) buyerOf(tokenID string) string {
	s.Helper()
	for _, issued := range s.sim.Issued() {
		if issued.ID == tokenID {
			return issued.KeyID
		}
	}
	s.Fatal("nobody issued the token")
	return ""
}

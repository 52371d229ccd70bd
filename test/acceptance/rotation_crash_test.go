// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// TestWhateverStepARotationDiesAtOneKeyIsLeft is the crash matrix: at each step of
// a rotation, before it takes effect and after, the plugin is killed, or the step
// fails. It logs the table that docs/rotation.md shows.
func TestWhateverStepARotationDiesAtOneKeyIsLeft(t *testing.T) {
	t.Parallel()
	s, gate := newSteppedStack(t)
	s.auditTo("audit.log")
	var table []string
	for number, h := range harms() {
		t.Run(h.String(), func(t *testing.T) {
			table = append(table, fmt.Sprintf("| %s | %s |", h, s.in(t).sufferDuringRotation(gate, h, fmt.Sprintf("case-%d", number))))
		})
	}
	t.Logf("the crash matrix:\n%s", strings.Join(table, "\n"))

	if len(gate.entries) == 0 || len(gate.keys) < len(harms()) {
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

func harms() (all []harm) {
	for _, at := range rotationSteps() {
		for _, after := range []bool{false, true} {
			for _, kill := range []bool{true, false} {
				all = append(all, harm{at, after, kill})
			}
		}
	}
	return all
}

func (h harm) String() string {
	when, what := "before", "fails"
	if h.after {
		when = "after"
	}
	if h.kill {
		what = "killed"
	}
	return fmt.Sprintf("%s | %s | %s", h.step, when, what)
}

// sufferDuringRotation returns what is left, in words, once everything is settled.
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
	answered := "answers an error"
	if err == nil {
		answered = "succeeds"
	}
	var live []apicsim.KeyInfo
	s.eventually("IAM holds one key, and that is the stored one", func() bool {
		config, err := s.client.Logical().Read("apic/config/" + name)
		live = s.liveKeysOf(identity)
		return err == nil && len(live) == 1 && (configKeyID(config) == live[0].ID || configKeyID(config) == "" && !live[0].CreatedByAPI)
	})
	secret, err := s.client.Logical().Write("apic/token/"+name, nil)
	s.check(err)
	if seller := s.buyerOf(secret.Data["token_id"].(string)); seller != live[0].KeyID {
		s.Fatalf("the token was bought with another key than the one that IAM holds")
	}
	if live[0].CreatedByAPI {
		return "rotate " + answered + " | the new key"
	}
	return "rotate " + answered + " | the old key"
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

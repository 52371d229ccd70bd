// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// auditLine is what the audit log says of an answer.
type auditLine struct {
	Type, Error string
	Auth        struct {
		DisplayName string `json:"display_name"`
		EntityID    string `json:"entity_id"`
	}
	Request struct {
		Operation, Path string
		Data            map[string]any
	}
	Response struct {
		Data     map[string]any
		WrapInfo struct{ Token string } `json:"wrap_info"`
		Secret   struct {
			LeaseID string `json:"lease_id"`
		}
	}
}

// auditedAnswers are the answers to requests of a path, oldest first.
func (s *stack) auditedAnswers(path string) (answers []auditLine) {
	s.Helper()
	for text := range strings.Lines(s.fileContent("audit.log")) {
		var line auditLine
		s.check(json.Unmarshal([]byte(text), &line))
		if line.Type == "response" && line.Request.Path == path {
			answers = append(answers, line)
		}
	}
	return answers
}

// holders are the display names of those who were handed a token.
func (s *stack) holders(tokenID string) (names []string) {
	s.Helper()
	for _, line := range s.auditedAnswers("apic/token/us-south") {
		if line.Response.Data["token_id"] == tokenID {
			names = append(names, line.Auth.DisplayName)
		}
	}
	return names
}

// auditedRequests counts the successful answers that the audit log has for an
// operation on a path.
func (s *stack) auditedRequests(operation, path string) (count int) {
	s.Helper()
	for _, line := range s.auditedAnswers(path) {
		if line.Error == "" && line.Request.Operation == operation {
			count++
		}
	}
	return count
}

func TestAuditLog_hasEachIssuanceAndNoSecret(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.enableAudit()
	s.writeConfig("us-south", nil)
	var tokens []string
	for range 5 {
		tokens = append(tokens, s.readToken("us-south").Data["token"].(string))
		own := s.write("apic/token/us-south", nil)
		tokens = append(tokens, own.Data["token"].(string))
	}
	for _, operation := range []string{"read", "update"} {
		if got := s.auditedRequests(operation, "apic/token/us-south"); got != 5 {
			t.Errorf("the audit log has %d of 5 issuances by %s", got, operation)
		}
	}
	s.requireNowhere("an audit log", s.fileContent("audit.log"), tokens...)
}

func (s *stack) fileContent(name string) string {
	s.Helper()
	content, err := os.ReadFile(s.path(name))
	s.check(err)
	return string(content)
}

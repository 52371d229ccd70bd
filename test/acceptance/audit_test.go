// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bufio"
	"encoding/json"
	"os"
	"testing"

	"github.com/hashicorp/vault/api"
)

func (s *stack) enableAudit(file string) {
	s.Helper()
	s.check(s.client.Sys().EnableAuditWithOptions("file", &api.EnableAuditOptions{
		Type: "file", Options: map[string]string{"file_path": s.path(file)},
	}))
}

// auditedRequests counts the successful answers that the audit log has for an
// operation on a path.
func (s *stack) auditedRequests(file, operation, path string) int {
	s.Helper()
	log, err := os.Open(s.path(file))
	s.check(err)
	defer log.Close()
	count := 0
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct {
			Type    string
			Error   string
			Request struct{ Operation, Path string }
		}
		s.check(json.Unmarshal(lines.Bytes(), &line))
		if line.Type == "response" && line.Error == "" && line.Request.Operation == operation && line.Request.Path == path {
			count++
		}
	}
	s.check(lines.Err())
	return count
}

func TestAuditLog_hasEachIssuanceAndNoSecret(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.auditTo("audit.log")
	s.writeConfig("us-south", nil)
	var tokens []string
	for range 5 {
		tokens = append(tokens, s.readToken("us-south").Data["token"].(string))
		own, err := s.client.Logical().Write("apic/token/us-south", nil)
		s.check(err)
		tokens = append(tokens, own.Data["token"].(string))
	}
	for _, operation := range []string{"read", "update"} {
		if got := s.auditedRequests("audit.log", operation, "apic/token/us-south"); got != 5 {
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

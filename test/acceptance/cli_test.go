// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestCLI_showsAnOperatorEverything(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	file := fmt.Sprintf(`{"name":"n","description":"","createdAt":"2026-01-01T00:00+0000","apikey":%q}`, s.key)
	s.check(os.WriteFile(s.path("apikey.json"), []byte(file), 0o600))

	s.mustCLI("secrets", "enable", "-path=second", pluginName)
	s.mustCLI("secrets", "disable", "second")
	s.expectCLI("Success! Data written to: apic/config/us-south",
		"write", "apic/config/us-south", "api_key=@apikey.json", "token_url="+s.service.URL()+"/apikey", "api_url="+s.service.URL())
	config := s.expectCLI(s.service.URL()+"/apikey", "read", "apic/config/us-south")
	if strings.Contains(config, "api_key") || strings.Contains(config, s.key) {
		t.Error("the config gives its key back")
	}
	s.expectCLI("token_id", "read", "apic/token/us-south")
	token := s.mustCLI("read", "-field=token", "apic/token/us-south")
	if got := s.callMe(token); got != http.StatusOK {
		t.Errorf("the API manager answered %d", got)
	}
	s.expectCLI("us-south", "list", "apic/config")
	s.expectCLI("Success! Data written to: apic/config/us-south", "patch", "apic/config/us-south", "max_retries=5")
	s.expectCLI("5", "read", "-field=max_retries", "apic/config/us-south")
	if own := s.mustCLI("write", "-f", "-field=token", "apic/token/us-south"); own == token {
		t.Error("an update answered the shared token")
	}
	if again := s.mustCLI("read", "-field=token", "apic/token/us-south"); again != token {
		t.Error("a read did not answer the shared token")
	}
	s.expectCLI("unrecognized parameters: [regoin]", "write", "apic/config/us-south", "regoin=x")
	s.expectCLI("stay valid until they expire", "delete", "apic/config/us-south")
	output, err := s.cli("read", "apic/token/us-south")
	if err == nil || !strings.Contains(output, "Code: 400") || !strings.Contains(output, "vault write <mount>/config/us-south api_key=@apikey.json") {
		t.Errorf("after the delete a read answers:\n%s", output)
	}
}

func (s *stack) expectCLI(text string, args ...string) string {
	s.Helper()
	output := s.mustCLI(args...)
	if !strings.Contains(output, text) {
		s.Errorf("vault %s does not print %q but\n%s", args[0], text, s.masked(output))
	}
	return output
}

func (s *stack) callMe(token string) int {
	s.Helper()
	return s.call("/v1/me", token)
}

// call is the API manager's status for a token.
func (s *stack) call(path, token string) int {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), http.MethodGet, s.service.URL()+path, nil)
	s.check(err)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	s.check(err)
	defer resp.Body.Close()
	return resp.StatusCode
}

func TestCLI_jsonHasWholeNumbersForTimes(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.writeConfig("us-south", nil)
	var answer struct {
		Data struct {
			TTL            json.Number `json:"ttl"`
			RotationPeriod json.Number `json:"rotation_period"`
			Token          string      `json:"token"`
		} `json:"data"`
	}
	s.check(json.Unmarshal([]byte(s.mustCLI("read", "-format=json", "apic/token/us-south")), &answer))
	for name, number := range map[string]json.Number{"ttl": answer.Data.TTL, "rotation_period": answer.Data.RotationPeriod} {
		if value, err := number.Int64(); err != nil || value < 2600 || value > 2700 {
			t.Errorf("%s is %s", name, number)
		}
	}
	if strings.Count(answer.Data.Token, ".") != 2 {
		t.Error("the token is no JWT")
	}
}

// The help names every field, and the OpenAPI document every operation.
func TestHelp_namesEveryFieldAndOperation(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.expectCLI("into short-lived JWTs", "path-help", "apic/")
	fields := []string{
		"api_key", "token_service", "region", "token_url", "api_url", "client_id", "client_secret", "credentials", "ca_cert",
		"request_timeout", "max_retries", "refresh_before", "cache", "lease", "verify",
	}
	for _, field := range fields {
		s.expectCLI("    "+field+" (", "path-help", "apic/config/us-south")
	}
	s.expectCLI("min_ttl", "path-help", "apic/token/us-south")
	document, err := s.client.Logical().Read("sys/internal/specs/openapi")
	s.check(err)
	encoded, err := json.Marshal(document.Data["paths"])
	s.check(err)
	for _, id := range []string{
		"apic-list-configs", "apic-read-config", "apic-write-config", "apic-delete-config", "apic-read-token", "apic-generate-token",
	} {
		if !strings.Contains(string(encoded), `"operationId":"`+id+`"`) {
			t.Errorf("the OpenAPI document has no operation %s", id)
		}
	}
	for _, field := range fields {
		if _, ok := schemaOf(t, document.Data, "ApicWriteConfigRequest")[field]; !ok {
			t.Errorf("the OpenAPI document's request to write a config has no %s", field)
		}
	}
}

// schemaOf returns the properties of one of an OpenAPI document's schemas.
func schemaOf(t *testing.T, document map[string]any, name string) map[string]any {
	t.Helper()
	at := document
	for _, member := range []string{"components", "schemas", name, "properties"} {
		below, ok := at[member].(map[string]any)
		if !ok {
			t.Fatalf("the OpenAPI document has no %s on the way to %s", member, name)
		}
		at = below
	}
	return at
}

func TestMount_runsTheRegisteredVersion(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	mounts, err := s.client.Sys().ListMounts()
	s.check(err)
	if got := mounts["apic/"].RunningVersion; got != pluginVersion {
		t.Fatalf("the mount runs %q", got)
	}
	listed := s.mustCLI("plugin", "list", "-detailed", "secret")
	if !slices.ContainsFunc(strings.Split(listed, "\n"), func(line string) bool {
		return strings.HasPrefix(line, pluginName+" ") && strings.Contains(line, pluginVersion)
	}) {
		t.Errorf("the catalogue lists\n%s", listed)
	}
}

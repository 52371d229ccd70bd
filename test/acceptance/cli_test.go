// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
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
	s.expectCLI("for short-lived JWTs", "path-help", "apic/")
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

// cli runs the real CLI and returns what it printed on both streams.
func (s *stack) cli(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, vaultBinary, args...)
	command.Dir = s.dir
	command.Env = append(s.environment(), "VAULT_ADDR="+s.client.Address(), "VAULT_TOKEN="+s.client.Token())
	output, err := command.CombinedOutput()
	return string(output), err
}

func (s *stack) mustCLI(args ...string) string {
	s.Helper()
	output, err := s.cli(args...)
	if err != nil {
		s.Fatalf("vault %s: %v\n%s", args[0], err, s.masked(output))
	}
	return output
}

// masked is a text that may be printed.
func (s *stack) masked(text string) string {
	return strings.NewReplacer(s.key, "[the key]", s.clientSecret, "[the client secret]").Replace(text)
}

func (s *stack) expectCLI(text string, args ...string) string {
	s.Helper()
	output := s.mustCLI(args...)
	if !strings.Contains(output, text) {
		s.Errorf("vault %s does not print %q but\n%s", args[0], text, s.masked(output))
	}
	return output
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

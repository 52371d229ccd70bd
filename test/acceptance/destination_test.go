// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// TestDestination_policyHolderRedirectsNothing has somebody whose policy lets them
// change a config, and who knows no key, try to have the key or its tokens sent to
// a service of theirs.
func TestDestination_policyHolderRedirectsNothing(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	theirs, err := apicsim.New(apicsim.Options{})
	s.check(err)
	service, err := apicsim.Start(theirs)
	s.check(err)
	defer service.Close()
	s.writeConfig("us-south", nil)
	patcher := s.as(`path "apic/config/us-south" { capabilities = ["patch"] }`)
	for _, field := range []string{"api_url", "token_url", "iam_url"} {
		_, err := patcher.Logical().JSONMergePatch(t.Context(), "apic/config/us-south", map[string]any{field: service.URL(), "verify": false})
		s.requireError(field, err, http.StatusBadRequest, "api_key is required again", "endpoints/us-south")
	}
	if got := s.readToken("us-south").Data["api_url"]; got != s.service.URL() {
		t.Errorf("readers are sent to %v", got)
	}

	writer := s.as(`path "apic/config/us-south" { capabilities = ["update"] }`)
	_, err = writer.Logical().Write("apic/config/us-south", s.configData(map[string]any{
		"api_key": "made-up", "token_url": service.URL() + "/apikey", "verify": false,
	}))
	s.check(err)
	s.check(os.WriteFile(s.path("apikey.json"), []byte(`{"apikey":"`+s.key+`"}`), 0o600))
	output, err := s.cli("write", "apic/config/us-south", "api_key=@apikey.json")
	if err == nil || !strings.Contains(output, strings.TrimPrefix(service.URL(), "http://")) || !strings.Contains(output, "token_url, api_url") {
		t.Errorf("the owner's write says %q", s.masked(output))
	}
	if got := theirs.Counts().Exchanges; got != 0 {
		t.Errorf("a key was sent to another service %d times", got)
	}
	s.mustCLI("write", "apic/config/us-south", "api_key=@apikey.json", "token_url="+s.service.URL()+"/apikey", "api_url="+s.service.URL())
	s.readToken("us-south")
}

func TestEndpoints_needSudo(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.writeConfig("us-south", nil)
	for _, c := range []struct {
		capabilities string
		read, write  int
	}{
		{`"create", "read", "update", "patch", "delete", "list"`, http.StatusForbidden, http.StatusForbidden},
		{`"read", "sudo"`, 0, http.StatusForbidden},
		{`"update", "sudo"`, http.StatusForbidden, 0},
	} {
		client := s.as(`path "apic/endpoints/*" { capabilities = [` + c.capabilities + `] }`)
		_, err := client.Logical().Read("apic/endpoints/us-south")
		if got := status(err); got != c.read {
			t.Errorf("with %s a read is answered %v", c.capabilities, err)
		}
		_, err = client.Logical().Write("apic/endpoints/us-south", map[string]any{"api_url": "https://api.example"})
		if got := status(err); got != c.write {
			t.Errorf("with %s a write is answered %v", c.capabilities, err)
		}
	}
	if got := s.readToken("us-south").Data["api_url"]; got != "https://api.example" {
		t.Errorf("readers are sent to %v", got)
	}
}

// TestEndpoints_moveAKeyThatNobodyHas follows docs/operations.md after a rotation:
// the services have another address, and a certificate of another authority.
func TestEndpoints_moveAKeyThatNobodyHas(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	before, err := apicsim.StartTLS(s.sim)
	s.check(err)
	s.writeConfig("us-south", map[string]any{
		"token_url": before.URL() + "/apikey", "iam_url": before.URL(), "ca_cert": before.CACertPEM(), "rotation_period": "24h",
	})
	id, err := s.rotate("us-south")
	s.check(err)
	before.Close()
	after, err := apicsim.StartTLS(s.sim)
	s.check(err)
	defer after.Close()

	s.check(os.WriteFile(s.path("ca.pem"), []byte(after.CACertPEM()), 0o600))
	s.requireError("a write of the config", s.tryWrite("apic/config/us-south", map[string]any{"ca_cert": after.CACertPEM()}), http.StatusBadRequest, "endpoints/us-south")
	s.requireError("an address without its CA", s.tryWrite("apic/endpoints/us-south", map[string]any{"token_url": after.URL() + "/apikey"}), http.StatusBadGateway, `config "us-south" keeps its endpoints`, "certificate that is not trusted")
	output := s.runDocumented("operations.md", "## Change an address or a CA after a rotation",
		"TOKEN_URL="+after.URL()+"/apikey", "IAM_URL="+after.URL(), "API_URL="+s.service.URL())
	if !strings.Contains(output, before.URL()) || !strings.Contains(output, "Success! Data written to: apic/endpoints/us-south") {
		t.Errorf("the commands print %q", s.masked(output))
	}

	if got := s.callMe(s.readToken("us-south").Data["token"].(string)); got != http.StatusOK {
		t.Errorf("the API manager answered %d", got)
	}
	config := s.read("apic/config/us-south")
	if configKeyID(config) != id || config.Data["next_vault_rotation"] == nil {
		t.Errorf("the config is %v", config.Data)
	}
	_, err = s.rotate("us-south")
	s.check(err)
	s.awaitOneKey("")
}

// TestConfigCreate_secondOneChangesNothing has clients that may only create do so at
// once. The service takes its time, so that Vault lets all of them in.
func TestConfigCreate_secondOneChangesNothing(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	creator := s.as(`path "apic/config/*" { capabilities = ["create"] }`)
	s.sim.Inject(apicsim.Fault{Latency: time.Second})
	var (
		mu      sync.Mutex
		refused []error
		clients sync.WaitGroup
	)
	for i := range 4 {
		clients.Go(func() {
			if err := create(creator, s.configData(map[string]any{"region": fmt.Sprintf("region-%d", i)})); err != nil {
				mu.Lock()
				defer mu.Unlock()
				refused = append(refused, err)
			}
		})
	}
	clients.Wait()
	if len(refused) != 3 {
		t.Errorf("of 4 creations %d were refused", len(refused))
	}
	for _, err := range refused {
		s.requireError("a creation that came second", err, http.StatusConflict, "was created by another write meanwhile")
	}
}

func create(client *api.Client, data map[string]any) error {
	_, err := client.Logical().Write("apic/config/us-south", data)
	return err
}

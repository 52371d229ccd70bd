// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// tokenServices are the values of token_service with the simulation's path for
// each.
func tokenServices() map[string]string {
	return map[string]string{"login": "/apikey", "iam": "/identity/token", "platform": "/api/token"}
}

// serviceData is a config for a token service at base, with overrides. It names
// what the service needs, and leaves the rest to its defaults.
func (s *stack) serviceData(service, base string, overrides map[string]any) map[string]any {
	data := map[string]any{"token_service": service, "api_key": s.key, "token_url": base + tokenServices()[service], "max_retries": 0}
	switch service {
	case "platform":
		data["client_id"], data["client_secret"] = s.clientID, s.clientSecret
	default:
		data["api_url"] = base
	}
	maps.Copy(data, overrides)
	return data
}

// writeService writes the config of a token service under the service's name.
func (s *stack) writeService(service string, overrides map[string]any) error {
	return s.tryWrite("apic/config/"+service, s.serviceData(service, s.service.URL(), overrides))
}

func (s *stack) requireNoConfig(name string) {
	s.Helper()
	if s.read("apic/config/"+name) != nil {
		s.Errorf("there is a config %s", name)
	}
}

// The API that the answer names accepts the token of each service.
func TestTokenServices_apiAcceptsTheToken(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	for service := range tokenServices() {
		s.check(s.writeService(service, nil))
		answer := s.readToken(service).Data
		if answer["api_url"] != s.service.URL() || answer["token_type"] != "Bearer" || answer["region"] != service {
			t.Errorf("%s: the answer names api_url %v, token_type %v, region %v", service, answer["api_url"], answer["token_type"], answer["region"])
		}
		for _, path := range []string{"/v1/me", "/api/me", "/api/orgs"} {
			if got := s.call(path, answer["token"].(string)); got != http.StatusOK {
				t.Errorf("%s: %s answered %d", service, path, got)
			}
		}
		config := s.read("apic/config/" + service)
		if config.Data["token_service"] != service || config.Data["token_url"] != s.service.URL()+tokenServices()[service] {
			t.Errorf("%s: the config is for %v at %v", service, config.Data["token_service"], config.Data["token_url"])
		}
		s.requireNowhere("a config", fmt.Sprint(config.Data))
	}
	if got := s.sim.Counts(); got.Issued != 3 || got.MeAccepted != 9 {
		t.Errorf("%d tokens were issued and %d calls accepted", got.Issued, got.MeAccepted)
	}
}

// A certificate of a private CA is trusted with ca_cert only.
func TestTokenServices_privateCANeedsCACert(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	secured, err := apicsim.StartTLS(s.sim)
	s.check(err)
	defer secured.Close()
	other, err := apicsim.StartTLS(s.sim)
	s.check(err)
	defer other.Close()
	for service := range tokenServices() {
		write := func(caCert string) error {
			data := s.serviceData(service, secured.URL(), map[string]any{"ca_cert": caCert})
			return s.tryWrite("apic/config/"+service, data)
		}
		distrust := []string{service + " token service at " + strings.TrimPrefix(secured.URL(), "https://"), "certificate that is not trusted", "check ca_cert"}
		s.requireError(service+" without ca_cert", write(""), http.StatusBadGateway, distrust...)
		s.requireError(service+" with another's ca_cert", write(other.CACertPEM()), http.StatusBadGateway, distrust...)
		s.requireNoConfig(service)

		s.check(write(secured.CACertPEM()))
		if got := s.call("/api/me", s.readToken(service).Data["token"].(string)); got != http.StatusOK {
			t.Errorf("%s: the API manager answered %d", service, got)
		}
	}
	if got := s.sim.Counts().Exchanges; got != 3 {
		t.Errorf("the key was sent %d times to 3 services that are trusted", got)
	}
}

func TestTokenServices_fieldOfAnotherServiceIsRefused(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	for _, service := range []string{"login", "iam"} {
		for field, value := range map[string]string{"client_id": s.clientID, "client_secret": s.clientSecret, "credentials": s.credentialsFile()} {
			err := s.writeService(service, map[string]any{field: value})
			s.requireError(service+" with "+field, err, http.StatusBadRequest, field+" is accepted by the platform token service only", "this config's is "+service)
		}
		s.requireNoConfig(service)
	}
	if got := s.sim.Counts().Exchanges; got != 0 {
		t.Errorf("the key was sent %d times", got)
	}
}

// credentialsFile is the toolkit's credentials.json for the simulated platform.
func (s *stack) credentialsFile() string {
	return fmt.Sprintf(`{"toolkit":{"client_id":%q,"client_secret":%q}}`, s.clientID, s.clientSecret)
}

func TestTokenService_inferredFromCredentials(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.check(os.WriteFile(s.path("credentials.json"), []byte(s.credentialsFile()), 0o600))
	s.mustCLI("write", "apic/config/saas", "api_key="+s.key, "credentials=@credentials.json", "token_url="+s.service.URL()+"/api/token")
	config := s.read("apic/config/saas")
	if config.Data["token_service"] != "platform" {
		t.Errorf("token_service is %v", config.Data["token_service"])
	}
	if got := s.call("/api/orgs", s.readToken("saas").Data["token"].(string)); got != http.StatusOK {
		t.Errorf("the platform answered %d", got)
	}

	s.requireError("a create without credentials", s.tryWrite("apic/config/nobody-said", map[string]any{"api_key": s.key, "token_url": s.service.URL() + "/gone", "max_retries": 0}), http.StatusBadRequest, "login token service at ", "no token_service was named",
		"token_service=platform with credentials=@credentials.json", "token_service=iam", "docs/token-services.md says which is yours")
	s.requireNoConfig("nobody-said")
}

// TestTokenServices_documentedStart runs the steps by which docs/token-services.md leads
// to a first token.
func TestTokenServices_documentedStart(t *testing.T) {
	t.Parallel()
	needs(t, "curl", "curl", "--version")
	s := newStack(t)
	s.check(os.WriteFile(s.path("apikey.txt"), []byte(s.key+"\n"), 0o600))
	s.check(os.WriteFile(s.path("credentials.json"), []byte(s.credentialsFile()), 0o600))
	printed := s.runDocumented("token-services.md", "## From your user to a token", "PLATFORM="+s.service.URL())
	for _, says := range []string{"Success! Data written to: apic/config/saas", "token_type", `"results"`} {
		if !strings.Contains(printed, says) {
			t.Errorf("the steps do not print %q", says)
		}
	}
	for _, name := range []string{"apikey.txt", "credentials.json"} {
		if _, err := os.Stat(s.path(name)); !os.IsNotExist(err) {
			t.Errorf("the steps leave %s: %v", name, err)
		}
	}
	if got := s.sim.Counts(); got.Exchanges != 1 {
		t.Errorf("the key was sent %d times", got.Exchanges)
	}
	printed = s.runDocumented("token-services.md", "## Keys that renew themselves")
	for _, says := range []string{"can_be_away_until", "api_key_id", "Success! Data written to: apic/config/saas"} {
		if !strings.Contains(printed, says) {
			t.Errorf("the commands about renewal do not print %q", says)
		}
	}
	if got := s.sim.Counts(); got.Exchanges != 2 {
		t.Errorf("after a rotation there were %d exchanges", got.Exchanges)
	}
}

// TestTokenServices_documentedConfigs runs the commands of docs/token-services.md as
// they stand, but for an exchange at hosts that do not exist, and then has each config
// get its token from the simulation.
func TestTokenServices_documentedConfigs(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	secured, err := apicsim.StartTLS(s.sim)
	s.check(err)
	defer secured.Close()
	for name, content := range map[string]string{
		"apikey.json":      fmt.Sprintf(`{"name":"n","apikey":%q}`, s.key),
		"credentials.json": s.credentialsFile(),
		"ca.pem":           secured.CACertPEM(),
	} {
		s.check(os.WriteFile(s.path(name), []byte(content), 0o600))
	}
	page := document(t, "token-services.md")
	services := map[string]string{}
	for _, command := range shownWrites(page) {
		args := strings.Fields(strings.ReplaceAll(command, "=KEY", "="+s.key))[1:]
		s.expectCLI("Success! Data written to", append(args, "verify=false")...)
		name := strings.TrimPrefix(args[1], "apic/config/")
		config := s.read("apic/config/" + name)
		services[name] = config.Data["token_service"].(string)
		for _, field := range []string{"token_url", "api_url"} {
			inForce := config.Data[field].(string)
			if byDefault := strings.ReplaceAll(inForce, name, "<region>"); !strings.Contains(page, inForce) && !strings.Contains(page, byDefault) {
				t.Errorf("after %q %s is %s, which the document does not say", command, field, inForce)
			}
		}
	}
	if len(services) != 5 {
		t.Errorf("the document shows %d configs", len(services))
	}
	for name, service := range services {
		move := []string{"write", "apic/config/" + name, "api_key=@apikey.json", "token_url=" + secured.URL() + tokenServices()[service], "ca_cert=@ca.pem"}
		if service == "platform" {
			move = append(move, "credentials=@credentials.json")
		}
		s.mustCLI(move...)
		if got := s.callMe(s.readToken(name).Data["token"].(string)); got != http.StatusOK {
			t.Errorf("%s: the API manager answered %d", name, got)
		}
	}
}

// shownWrites are the commands of a document that write a config, each on one
// line, but for those with variables, which are run in their section's shell.
func shownWrites(document string) (commands []string) {
	for line := range strings.Lines(strings.ReplaceAll(document, "\\\n", " ")) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "vault write apic/config/") && !strings.Contains(line, "$") {
			commands = append(commands, line)
		}
	}
	return commands
}

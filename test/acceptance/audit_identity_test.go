// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"log/slog"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// user logs in with a name and a password, as a client of these policy rules.
func (s *stack) user(name, rules string) *api.Client {
	s.Helper()
	s.check(s.client.Sys().PutPolicy("of-"+name, rules))
	password := "of-" + name
	s.write("auth/userpass/users/"+name, map[string]any{"password": password, "token_policies": "of-" + name})
	client, err := s.client.Clone()
	s.check(err)
	login, err := client.Logical().Write("auth/userpass/login/"+name, map[string]any{"password": password})
	s.check(err)
	client.SetToken(login.Auth.ClientToken)
	return client
}

// managerLog is what a simulated API manager logs of the calls it takes.
type managerLog struct{ said }

// tokenIDs are those of the tokens that were used, oldest first.
func (l *managerLog) tokenIDs(t *testing.T) (ids []string) {
	t.Helper()
	for text := range strings.Lines(l.String()) {
		var line struct {
			Path    string `json:"path"`
			TokenID string `json:"token_id"`
		}
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatal(err)
		}
		if line.Path == "/v1/me" && line.TokenID != "" {
			ids = append(ids, line.TokenID)
		}
	}
	return ids
}

// logUses has a service of the test's own, which logs, take the place of the
// stack's.
func (s *stack) logUses() *managerLog {
	s.Helper()
	log := &managerLog{}
	sim, err := apicsim.New(apicsim.Options{Keys: []string{s.key}, Logger: slog.New(slog.NewJSONHandler(log, nil))})
	s.check(err)
	service, err := apicsim.Start(sim)
	s.check(err)
	s.Cleanup(service.Close)
	s.sim, s.service = sim, service
	return log
}

// usedTokenID calls the API manager with a token and returns the id that the API
// manager logged of it.
func (s *stack) usedTokenID(log *managerLog, token string) string {
	s.Helper()
	before := len(log.tokenIDs(s.T))
	s.callMe(token)
	s.eventually("the API manager has logged the call", func() bool { return len(log.tokenIDs(s.T)) > before })
	return log.tokenIDs(s.T)[before]
}

// TestAuditLog_namesTheReaderOfAToken follows docs/audit.md from an id in API Connect's
// log to the Vault identities that held the token.
func TestAuditLog_namesTheReaderOfAToken(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	managerLog := s.logUses()
	auditLog := "AUDIT_LOG=" + s.path("audit.log")
	s.check(s.client.Sys().EnableAuthWithOptions("userpass", &api.EnableAuthOptions{Type: "userpass"}))
	alice := s.user("alice", `path "apic/token/us-south" { capabilities = ["read"] }`)
	bob := s.user("bob", `path "apic/token/us-south" { capabilities = ["read", "update"] }`)
	s.setUpAudit()
	s.writeConfig("us-south", nil)

	shared := s.readAs(alice)
	own, err := bob.Logical().Write("apic/token/us-south", nil)
	s.check(err)
	sharedToken, ownToken := shared.Data["token"].(string), own.Data["token"].(string)
	for _, c := range []struct {
		token string
		want  []string
	}{
		{sharedToken, []string{"userpass-alice"}},
		{ownToken, []string{"userpass-bob"}},
	} {
		id := s.usedTokenID(managerLog, c.token)
		if got := s.holders(id); !slices.Equal(got, c.want) {
			t.Errorf("the audit log has %q as holders of token %s, want %q", got, id, c.want)
		}
		if issued := s.sim.Issued(); !slices.ContainsFunc(issued, func(i apicsim.IssuedToken) bool { return i.ID == id }) {
			t.Errorf("the token service issued no token %s", id)
		}
	}
	s.readAs(bob)
	sharedID := s.usedTokenID(managerLog, sharedToken)
	if got, want := s.holders(sharedID), []string{"userpass-alice", "userpass-bob"}; !slices.Equal(got, want) {
		t.Errorf("the audit log has %q as holders of the shared token, want %q", got, want)
	}
	s.requireAuditLineAfterTheDocument(shared)
	s.requireDocumentedQueries(auditLog, sharedID, sharedToken)
	s.requireNowhere("the tuned mount's audit log", s.fileContent("audit.log"), sharedToken, ownToken)
}

// requireAuditLineAfterTheDocument holds the first read's line against the
// document's table of what is in plaintext.
func (s *stack) requireAuditLineAfterTheDocument(answered *api.Secret) {
	s.Helper()
	line := s.auditedAnswers("apic/token/us-south")[0]
	if line.Auth.EntityID == "" {
		s.Error("the line names no entity")
	}
	for field, value := range answered.Data {
		logged := line.Response.Data[field]
		_, isNumber := value.(json.Number)
		if isNumber || slices.Contains([]string{"token_id", "region", "expires_at"}, field) {
			if !sameJSON(logged, value) {
				s.Errorf("%s stands there as %v, want it in plaintext: %v", field, logged, value)
			}
			continue
		}
		if !isHMAC(logged) && !(isOpenBao() && field == "last_vault_rotation") { // It leaves times as they are.
			s.Errorf("%s is no HMAC", field)
		}
	}
	config := s.auditedAnswers("apic/config/us-south")[0]
	for _, field := range []string{"api_key", "token_url"} {
		if !isHMAC(config.Request.Data[field]) {
			s.Errorf("the config's %s is no HMAC", field)
		}
	}
}

func isHMAC(logged any) bool {
	text, _ := logged.(string)
	return strings.HasPrefix(text, "hmac-sha256:")
}

func sameJSON(a, b any) bool {
	left, errLeft := json.Marshal(a)
	right, errRight := json.Marshal(b)
	return errLeft == nil && errRight == nil && string(left) == string(right)
}

// requireDocumentedQueries runs the document's own commands for "who got this
// token", where their jq is.
func (s *stack) requireDocumentedQueries(auditLog, tokenID, token string) {
	s.Helper()
	if _, err := exec.LookPath("jq"); err != nil {
		s.Log("no jq here: the document's queries are not run")
		return
	}
	s.requireDocumentedQueryByTime(auditLog)
	answer := s.runDocumented("audit.md", "## Who got this token?", auditLog, "TOKEN_ID="+tokenID, "TOKEN="+token)
	for _, holder := range []string{`"who":"userpass-alice"`, `"who":"userpass-bob"`} {
		if got := strings.Count(answer, holder); got != 2 {
			s.Errorf("the two queries answer %s %d times, want once each, in\n%s", holder, got, answer)
		}
	}
}

// requireDocumentedQueryByTime runs the document's query for a log without ids, for a
// time at which both users held a token and for one before.
func (s *stack) requireDocumentedQueryByTime(auditLog string) {
	s.Helper()
	for at, want := range map[time.Time]bool{time.Now().Add(time.Second): true, time.Now().Add(-time.Hour): false} {
		answer := s.runDocumented("audit.md", "## From API Connect's log", auditLog,
			"TOKEN_PATH=apic/token/us-south", "AT="+at.UTC().Format(time.RFC3339))
		for _, holder := range []string{`"who":"userpass-alice"`, `"who":"userpass-bob"`} {
			if got := strings.Contains(answer, holder); got != want {
				s.Errorf("for %s the query answers %s: %t, want %t", at, holder, got, want)
			}
		}
	}
}

func TestAuditLog_hasNoTokenIDUntilTheMountIsTuned(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.enableAudit()
	s.writeConfig("us-south", nil)
	id := s.readToken("us-south").Data["token_id"].(string)
	if logged := s.auditedAnswers("apic/token/us-south")[0].Response.Data["token_id"]; !isHMAC(logged) {
		t.Errorf("the audit log has %v for token %s", logged, id)
	}
}

// TestAuditLog_wrappedTokenAndLease holds what docs/audit.md says of answers that do
// not look like the others.
func TestAuditLog_wrappedTokenAndLease(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.setUpAudit()
	s.writeConfig("us-south", map[string]any{"lease": true})

	leased := s.readToken("us-south")
	if logged := s.auditedAnswers("apic/token/us-south")[0].Response.Secret.LeaseID; logged != leased.LeaseID {
		t.Errorf("the audit log has lease %q, the answer %q", logged, leased.LeaseID)
	}
	s.mustCLI("lease", "revoke", leased.LeaseID)
	if len(s.auditedAnswers("sys/leases/revoke/"+leased.LeaseID)) == 0 {
		t.Error("the audit log has no revocation")
	}

	s.writeConfig("us-south", map[string]any{"lease": false})
	wrapped := s.mustCLI("read", "-wrap-ttl=60s", "-field=wrapping_token", "apic/token/us-south")
	id := s.mustCLI("unwrap", "-field=token_id", wrapped)
	reads := s.auditedAnswers("apic/token/us-south")
	read, unwrapped := reads[len(reads)-1], s.auditedAnswers("sys/wrapping/unwrap")[0]
	if read.Response.Data != nil || read.Response.WrapInfo.Token != unwrapped.Request.Data["token"] {
		t.Error("the line of the read does not lead to the one of the unwrapping")
	}
	hash := s.mustCLI("write", "-field=hash", "sys/audit-hash/file", "input="+id)
	if logged := unwrapped.Response.Data["token_id"]; logged != hash {
		t.Errorf("the unwrapping's line has token_id %v, its HMAC is %s", logged, hash)
	}
}

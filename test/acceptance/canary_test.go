// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// forms are the ways in which a secret could stand in a text.
func forms(secret string) []string {
	return []string{
		secret,
		url.QueryEscape(secret),
		base64.StdEncoding.EncodeToString([]byte(secret)),
		fmt.Sprintf("%x", secret),
	}
}

func occurs(text, secret string) bool {
	for _, form := range forms(secret) {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

// requireNowhere fails if the key, the client secret or a token is in a text. It
// prints none of them.
func (s *stack) requireNowhere(what, text string, more ...string) {
	s.Helper()
	if text == "" {
		s.Errorf("%s is empty, so that nothing could be found in it", what)
	}
	if occurs(text, s.key) {
		s.Errorf("%s holds the API key", what)
	}
	if occurs(text, s.clientSecret) {
		s.Errorf("%s holds the client secret", what)
	}
	for _, secret := range more {
		if occurs(text, secret) {
			s.Errorf("%s holds a token", what)
		}
	}
}

func TestSearch_findsASecretInAnyForm(t *testing.T) {
	for _, form := range forms("a key/with+signs") {
		if !occurs("before "+form+" after", "a key/with+signs") {
			t.Errorf("the form %q is not found", form)
		}
	}
}

// TestSecrets_areNowhereInPlaintext drives everything that handles them, rightly and
// wrongly, and then searches all that a server leaves behind.
func TestSecrets_areNowhereInPlaintext(t *testing.T) {
	t.Parallel()
	s := newRaftStack(t)
	s.enableAudit()
	var said strings.Builder
	s.writeConfig("us-south", nil)
	tokens := []string{s.readToken("us-south").Data["token"].(string)}
	for service := range tokenServices() {
		s.check(s.writeService(service, nil))
		tokens = append(tokens, s.readToken(service).Data["token"].(string))
	}

	s.provokeBadInput(&said)
	s.provokeBadCredentials(&said)
	for service := range tokenServices() {
		s.provokeFaults(&said, service)
	}
	s.provokeEchoesOfTheClientSecret(&said)
	s.provokeRateLimit(&said)
	for _, path := range []string{
		"apic/config/us-south", "apic/config/from-object", "apic/config/iam", "apic/config/platform", "apic/config?list=true", "apic/endpoints/us-south",
		"sys/mounts", "sys/mounts/apic", "sys/plugins/catalog", "sys/internal/specs/openapi",
	} {
		path, query, _ := strings.Cut(path, "?")
		params, err := url.ParseQuery(query)
		s.check(err)
		secret, err := s.client.Logical().ReadWithData(path, params)
		s.check(err)
		if secret == nil {
			t.Fatalf("%s answers nothing", path)
		}
		fmt.Fprintln(&said, secret.Data, secret.Warnings)
	}
	for _, path := range []string{"apic/", "apic/config/us-south", "apic/token/us-south"} {
		help, err := s.client.Help(path)
		s.check(err)
		fmt.Fprintln(&said, help.Help, help.OpenAPI)
	}
	// What every JWT of a service begins with.
	for _, token := range tokens {
		header, _, _ := strings.Cut(token, ".")
		tokens = append(tokens, header)
	}
	s.requireNowhere("an answer or error", said.String(), tokens...)
	log := s.fileContent("vault.log")
	if !strings.Contains(log, "[TRACE]") || !strings.Contains(log, "config written") {
		t.Error("the server's log has no trace level or misses what the plugin says")
	}
	s.requireNowhere("the server's log", log, tokens...)
	s.requireNowhere("the audit log", s.fileContent("audit.log"), tokens...)
	s.requireNowhere("the raw storage", s.rawStorage(), tokens...)
}

func (s *stack) provokeBadInput(said io.Writer) {
	s.Helper()
	asFile := map[string]any{"name": "n", "apikey": s.key}
	s.say(said, "config/from-object", s.configData(map[string]any{"api_key": asFile}), http.StatusNoContent)
	for _, wrong := range []map[string]any{
		{"api_key": map[string]any{"key": s.key}},
		{"api_key": []any{s.key}},
		{"api_key": s.key + "\n" + s.key},
		{"api_key": `{"apikey":"` + s.key + `"`},
		{"region": s.key + "/"},
		{"token_service": s.key},
		{"token_url": "http://" + s.key + ".example/"},
		{"token_url": "https://user:" + s.key + "@host.example/"},
		{"ca_cert": s.key},
		{"request_timeout": s.key},
		{"refresh_before": s.key},
		{"max_retries": s.key},
		{"cache": s.key},
		{"lease": s.key},
		{"verify": s.key},
		{"api_key": s.key + "-revoked"},
	} {
		s.say(said, "config/us-south", s.configData(wrong), http.StatusBadRequest)
	}
	for field, wrong := range map[string]any{
		"region": s.key + "/", "token_url": "https://user:" + s.key + "@host.example/", "api_url": "https://host.example/?" + s.key,
		"iam_url": "https://host.example/" + s.key, "ca_cert": s.key, "verify": s.key,
	} {
		s.say(said, "endpoints/us-south", map[string]any{field: wrong}, http.StatusBadRequest)
	}
}

func (s *stack) provokeBadCredentials(said io.Writer) {
	s.Helper()
	inFile := map[string]any{"toolkit": map[string]any{"client_id": s.clientID, "client_secret": s.clientSecret}}
	asObject := s.serviceData("platform", s.service.URL(), map[string]any{"credentials": inFile})
	delete(asObject, "client_secret")
	s.say(said, "config/platform", asObject, http.StatusNoContent)
	for _, wrong := range []map[string]any{
		{"client_secret": s.clientSecret + "\n" + s.clientSecret},
		{"client_secret": s.clientSecret + "-wrong"},
		{"client_secret": inFile},
		{"client_secret": []any{s.clientSecret}},
		{"client_id": s.clientSecret},
		{"client_id": s.clientSecret + " "},
		{"client_id": inFile},
		{"credentials": s.clientSecret},
		{"credentials": `{"client_secret":"` + s.clientSecret + `"}`},
		{"credentials": `{"toolkit":{"client_secret":"` + s.clientSecret + `"}`},
		{"credentials": map[string]any{"toolkit": map[string]any{"client_id": []any{s.clientSecret}}}},
		{"token_service": "iam"},
		{"api_key": s.clientSecret},
		{"region": s.clientSecret},
		{"token_url": "https://" + s.clientSecret + "@host.example/"},
		{"max_retries": s.clientSecret},
	} {
		s.say(said, "config/platform", s.serviceData("platform", s.service.URL(), wrong), http.StatusBadRequest)
	}
}

// say writes a config by plain HTTP, which can send what the client cannot, and
// keeps the answer.
func (s *stack) say(said io.Writer, path string, data map[string]any, want int) {
	s.Helper()
	encoded, err := json.Marshal(data)
	s.check(err)
	req, err := http.NewRequestWithContext(s.Context(), http.MethodPost, s.client.Address()+"/v1/apic/"+path, bytes.NewReader(encoded))
	s.check(err)
	req.Header.Set("X-Vault-Token", s.client.Token())
	resp, err := http.DefaultClient.Do(req)
	s.check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	s.check(err)
	fmt.Fprintf(said, "%s %s\n", resp.Status, body)
	warned := want == http.StatusNoContent && resp.StatusCode == http.StatusOK // Of keys that can't be made with the token of a fault.
	if resp.StatusCode != want && !warned {
		s.Errorf("a write of %s answered %d, want %d", path, resp.StatusCode, want)
	}
}

func (s *stack) provokeFaults(said io.Writer, service string) {
	s.Helper()
	config := s.serviceData(service, s.service.URL(), map[string]any{"request_timeout": "1s"})
	path, inAnHour := "config/"+service, time.Now().Add(time.Hour).Unix()
	for _, fault := range []apicsim.Fault{
		{Kind: apicsim.KindStatus, Status: 400}, {Kind: apicsim.KindStatus, Status: 401}, {Kind: apicsim.KindStatus, Status: 403},
		{Kind: apicsim.KindStatus, Status: 404}, {Kind: apicsim.KindStatus, Status: 500}, {Kind: apicsim.KindStatus, Status: 503},
		{Kind: apicsim.KindStatus, Status: 429},
		{Kind: apicsim.KindReset}, {Kind: apicsim.KindResetMidBody}, {Kind: apicsim.KindHang}, {Kind: apicsim.KindRedirect},
		{Kind: apicsim.KindRedirect, RedirectTo: "https://elsewhere.example/"},
		{Kind: apicsim.KindEndlessBody}, {Kind: apicsim.KindTrickle},
		{Kind: apicsim.KindStatus, Status: 200, ContentEncoding: "gzip", Body: "this is not compressed, {key}"},
		apicsim.Answering("<html>{key}</html>"), apicsim.Answering(""), apicsim.Answering(`{"message":"welcome {key}"}`), apicsim.Answering(`{"{field}":{"value":"{key}"}}`),
		apicsim.Answering(`{"{field}":"{key}"}`), apicsim.Answering(`{"errorCode":"BXNIM0415E","message":["{key}"],"errors":["{key}"]}`),
		apicsim.Answering("{\"{field}\":\"ey\xff\xfe.\xc3\x28.x\"}"),
		apicsim.Issuing(`{"jti":"an-id"}`), apicsim.Issuing(`{"exp":1}`), apicsim.Issuing(`{"exp":"%d"}`, inAnHour), apicsim.Issuing(`{"exp":253370764800}`),
		apicsim.Issuing(`{"exp":%d,"padding":%q}`, inAnHour, strings.Repeat("p", 150_000)),
	} {
		s.sim.Inject(fault)
		config["api_key"] = s.anotherKey()
		want := http.StatusBadGateway
		if fault.Status >= 400 && fault.Status < 429 {
			want = http.StatusBadRequest
		}
		s.say(said, path, config, want)
	}
	config["api_key"] = s.anotherKey()
	s.sim.Inject(apicsim.Issuing(`{"exp":%d,"jti":%q}`, inAnHour, config["api_key"]))
	s.say(said, path, config, http.StatusBadGateway)
	for _, fault := range []apicsim.Fault{
		{Kind: apicsim.KindGzip}, apicsim.Answering(`{"{field}":"{token}","{field}":"{token}"}`), apicsim.Issuing(`{"exp":%d.5}`, inAnHour),
		apicsim.Issuing(`{"exp":%d}`, inAnHour), apicsim.Issuing(`{"exp":%d,"padding":%q}`, inAnHour, strings.Repeat("p", 45_000)),
	} {
		s.sim.Inject(fault)
		config["api_key"] = s.anotherKey()
		s.say(said, path, config, http.StatusNoContent)
		fmt.Fprintln(said, s.readToken(service).Data["token_id"])
	}
	s.check(s.service.Refuse())
	s.say(said, path, config, http.StatusBadGateway)
	s.check(s.service.Accept())
	s.sim.ClearFault()
}

// provokeEchoesOfTheClientSecret has the service send back what the faults above
// do not: they echo the key.
func (s *stack) provokeEchoesOfTheClientSecret(said io.Writer) {
	s.Helper()
	config, inAnHour := s.serviceData("platform", s.service.URL(), nil), time.Now().Add(time.Hour).Unix()
	echo := fmt.Sprintf(`{"status":%[1]q,"message":[%[1]q],"errors":[%[1]q],"errorCode":%[1]q,"access_token":%[1]q}`, s.clientSecret)
	for _, c := range []struct {
		fault apicsim.Fault
		want  int
	}{
		{apicsim.Fault{Kind: apicsim.KindStatus, Status: 400, Body: echo}, http.StatusBadRequest},
		{apicsim.Fault{Kind: apicsim.KindStatus, Status: 401, Body: echo}, http.StatusBadRequest},
		{apicsim.Fault{Kind: apicsim.KindStatus, Status: 500, Body: echo}, http.StatusBadGateway},
		{apicsim.Answering(s.clientSecret), http.StatusBadGateway},
		{apicsim.Answering(echo), http.StatusBadGateway},
		{apicsim.Issuing(`{"exp":%d,"jti":%q}`, inAnHour, s.clientSecret), http.StatusBadGateway},
		{apicsim.Issuing(`{"exp":%d,"jti":%q}`, inAnHour, s.clientSecret[:len(s.clientSecret)-1]), http.StatusBadGateway},
	} {
		s.sim.Inject(c.fault)
		config["api_key"] = s.anotherKey()
		s.say(said, "config/platform", config, c.want)
	}
	fmt.Fprintln(said, s.readToken("platform").Data["token_id"])
	s.sim.ClearFault()
}

// provokeRateLimit comes last: no config calls the service afterwards.
func (s *stack) provokeRateLimit(said io.Writer) {
	s.Helper()
	s.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: 429, RetryAfter: "3600"})
	for _, want := range []int{http.StatusBadGateway, http.StatusServiceUnavailable} {
		s.say(said, "config/us-south", s.configData(map[string]any{"api_key": s.anotherKey()}), want)
	}
	checked := s.read("apic/config/us-south/check")
	fmt.Fprintln(said, checked.Data, checked.Warnings)
	s.sim.ClearFault()
}

// rawStorage is what raft has on disk, after proof that a config is in there.
func (s *stack) rawStorage() string {
	s.Helper()
	var content bytes.Buffer
	s.check(filepath.WalkDir(s.path("raft"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		part, err := os.ReadFile(path)
		content.Write(part)
		return err
	}))
	if !strings.Contains(content.String(), "config/us-south") {
		s.Error("the raw storage does not hold the config's entry")
	}
	return content.String()
}

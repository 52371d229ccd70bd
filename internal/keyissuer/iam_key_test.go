// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

// knownSecret is what a session sends, and what no answer may make it repeat.
const knownSecret = "a-key-of-some-length"

const (
	wholeKey = `{"id":"ApiKey-1","name":"n","iam_id":"IBMid-1","account_id":"a1","description":"d","locked":true,"disabled":true,"action_when_leaked":"disable","support_sessions":true,` +
		`"created_at":"2026-01-02T03:04+0000","expires_at":"2027-01-02T03:04:05.678Z","apikey":"the-value"}`
	oldKey = `{"id":"ApiKey-1","iam_id":"IBMid-1","account_id":"a1","apikey":""}`
)

// keySeeds are answers that describe a key well, badly and not at all.
var keySeeds = []string{
	wholeKey, oldKey, "", "{}", "null", "[]", "<html>", `{"id":"ApiKey-1"}`, `{"id":1}`,
	`{"id":"../../etc","iam_id":"IBMid-1","account_id":"a1","apikey":"v"}`,
	`{"id":"` + knownSecret + `","iam_id":"IBMid-1","account_id":"a1","apikey":"v"}`,
	`{"id":"ApiKey-1","iam_id":"IBMid-1","account_id":"a1","name":"` + knownSecret + `","description":"` + knownSecret + `","action_when_leaked":"` + knownSecret + `","apikey":"v"}`,
	`{"id":"ApiKey-1","iam_id":"IBMid-1","account_id":"a1","apikey":"two words"}`,
	`{"id":"ApiKey-1","iam_id":"IBMid-1","account_id":"a1","apikey":"ApiKey-1"}`,
	`{"id":"ApiKey-1","iam_id":"IBMid-1","account_id":"a1","apikey":"1I"}`,
	`{"id":"ApiKey-1","iam_id":"IBMid-1","account_id":"a1","apikey":{"v":1}}`,
	`{"id":"ApiKey-1","iam_id":"IBMid-1","account_id":"a1","created_at":"9999999-01-01","apikey":"v"}`,
	"{\"id\":\"\xff\xfe\",\"iam_id\":\"IBMid-1\",\"account_id\":\"a1\",\"apikey\":\"v\"}",
}

func TestParseKey_allItsDetails(t *testing.T) {
	want := rotation.Details{
		ID: "ApiKey-1", Name: "n", Description: "d", Identity: "IBMid-1", AccountID: "a1", Locked: true, Disabled: true,
		CreatedAt: time.Date(2026, 1, 2, 3, 5, 0, 0, time.UTC), ExpiresAt: time.Date(2027, 1, 2, 3, 4, 5, 678e6, time.UTC),
		ActionWhenLeaked: "disable", SupportSessions: true,
	}
	if got, reason := oneKey[keyAnswer]([]byte(wholeKey), knownSecret); reason != "" || got != want {
		t.Errorf("got %+v, %s", got, reason)
	}
	got, value, reason := newKey[keyAnswer]([]byte(wholeKey), knownSecret)
	if reason != "" || got != want || value != "the-value" {
		t.Errorf("a new key is %+v, %s", got, reason)
	}
}

// TestIAMKey_namesTheSettingsThatAreLost, for a successor could not be given the same.
func TestIAMKey_namesTheSettingsThatAreLost(t *testing.T) {
	const about = `{"id":"ApiKey-1","iam_id":"IBMid-1","account_id":"a1",`
	for name, c := range map[string]struct{ settings, want string }{
		"none":                       {`"description":"d","expires_at":"2027-01-02T03:04+0000","action_when_leaked":"delete"}`, ""},
		"nothing set":                {`"description":"","expires_at":"","action_when_leaked":""}`, ""},
		"a description with a value": {`"description":"` + knownSecret + `"}`, "description"},
		"a time of another form":     {`"expires_at":"next week"}`, "expires_at"},
		"an action that is a text":   {`"action_when_leaked":"tell the boss"}`, "action_when_leaked"},
		"two":                        {`"expires_at":"next week","action_when_leaked":"tell the boss"}`, "expires_at, action_when_leaked"},
	} {
		if got, reason := oneKey[keyAnswer]([]byte(about+c.settings), knownSecret); reason != "" || got.NotCarried != c.want {
			t.Errorf("%s: lost is %q, %s", name, got.NotCarried, reason)
		}
	}
}

func TestParseNewKey_refusesInvalidKeys(t *testing.T) {
	for name, c := range map[string]struct{ body, says string }{
		"an id that is a path":       {`{"id":"../x","iam_id":"i","account_id":"a","apikey":"v"}`, "can't be one"},
		"an id that is a secret":     {`{"id":"` + knownSecret + `","iam_id":"i","account_id":"a","apikey":"v"}`, "can't be one"},
		"an id that is the value":    {`{"id":"v","iam_id":"i","account_id":"a","apikey":"v"}`, "can't be one"},
		"an id that is very long":    {`{"id":"` + strings.Repeat("x", 129) + `","iam_id":"i","account_id":"a","apikey":"v"}`, "can't be one"},
		"no id":                      {`{"iam_id":"i","account_id":"a","apikey":"v"}`, "can't be one"},
		"no iam_id":                  {`{"id":"x","account_id":"a","apikey":"v"}`, "can't be one"},
		"no account_id":              {`{"id":"x","iam_id":"i","apikey":"v"}`, "can't be one"},
		"an iam_id with white space": {`{"id":"x","iam_id":"i d","account_id":"a","apikey":"v"}`, "can't be one"},
		"no value":                   {`{"id":"x","iam_id":"i","account_id":"a"}`, "without the key's value"},
		"an empty value":             {`{"id":"x","iam_id":"i","account_id":"a","apikey":""}`, "without the key's value"},
		"a value of two words":       {`{"id":"x","iam_id":"i","account_id":"a","apikey":"v w"}`, "value can't be one"},
		"a value of two lines":       {`{"id":"x","iam_id":"i","account_id":"a","apikey":"v\nw"}`, "value can't be one"},
		"a value without end":        {`{"id":"x","iam_id":"i","account_id":"a","apikey":"` + strings.Repeat("v", 4097) + `"}`, "value can't be one"},
		"another shape":              {`{"id":{}}`, "another shape than an API key's"},
		"no JSON":                    {`<html>`, "not JSON"},
		"nothing":                    {``, "not JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			key, value, reason := newKey[keyAnswer]([]byte(c.body), knownSecret)
			if !strings.Contains(reason, c.says) {
				t.Fatalf("got %+v, %q", key, reason)
			}
			// By its id it can be deleted, though it can't be used.
			if named := strings.Contains(c.body, `"id":"x"`); named != (key.ID == "x") || !named && (key != rotation.Details{} || value != "") {
				t.Fatalf("got %+v, %q", key, reason)
			}
		})
	}
}

func TestParseList_nextPageByItsTokenAlone(t *testing.T) {
	for name, c := range map[string]struct{ next, token, says string }{
		"the last page":          {"", "", ""},
		"a link":                 {"https://iam.cloud.ibm.com/v1/apikeys?account_id=a&pagetoken=p+1", "p 1", ""},
		"a link to another host": {"https://elsewhere.example/?pagetoken=p1", "p1", ""},
		"a link without a token": {"https://iam.cloud.ibm.com/v1/apikeys", "", "without a page token"},
		"a link with a huge one": {"/?pagetoken=" + strings.Repeat("p", 2049), "", "without a page token"},
		"a link that is not one": {"http://%zz", "", "does not parse"},
		"a relative link":        {"?pagetoken=p1", "p1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			keys, token, reason := parseList([]byte(`{"apikeys":[`+oldKey+`],"next":"`+c.next+`"}`), knownSecret)
			if token != c.token || (reason == "") != (c.says == "") || !strings.Contains(reason, c.says) {
				t.Fatalf("got %q, %q", token, reason)
			}
			if reason == "" && (len(keys) != 1 || keys[0].ID != "ApiKey-1") {
				t.Fatalf("keys are %+v", keys)
			}
		})
	}
}

func TestParseList_invalidListIsNotEmpty(t *testing.T) {
	for _, body := range []string{`{}`, `null`, `{"apikeys":null}`, `[]`, `{"apikeys":{}}`, `{"apikeys":[{}]}`, `{"errors":[]}`, ``} {
		if keys, _, reason := parseList([]byte(body), knownSecret); reason == "" || keys != nil {
			t.Errorf("%q was accepted", body)
		}
	}
	if keys, _, reason := parseList([]byte(`{"apikeys":[]}`), knownSecret); reason != "" || len(keys) != 0 {
		t.Errorf("an empty list is %d keys, %s", len(keys), reason)
	}
}

// TestParseError_codeAndTrace: only what looks like a code or a trace is one.
func TestParseError_codeAndTrace(t *testing.T) {
	for name, c := range map[string]struct{ body, code, trace string }{
		"both codes":           {`{"trace":"t-1","errors":[{"code":"not_found","message_code":"BXNIM0102E","message":"m"}]}`, "BXNIM0102E", "t-1"},
		"a code alone":         {`{"trace":"t-1","status_code":404,"errors":[{"code":"not_found","message":"m"}]}`, "not_found", "t-1"},
		"the second error's":   {`{"errors":[{"message":"m"},{"code":"conflict"}]}`, "conflict", ""},
		"a sentence":           {`{"trace":"a trace","errors":[{"code":"The Code"}]}`, "", ""},
		"a secret":             {`{"trace":"` + knownSecret + `","errors":[{"code":"` + knownSecret + `"}]}`, "", ""},
		"a code without end":   {`{"errors":[{"code":"` + strings.Repeat("x", 65) + `"}]}`, "", ""},
		"the token endpoint's": {`{"errorCode":"BXNIM0415E"}`, "BXNIM0415E", ""},
		"HTML":                 {`<html>`, "", ""},
		"nothing":              {``, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if code, trace := parseError([]byte(c.body), knownSecret); code != c.code || trace != c.trace {
				t.Fatalf("got %q and %q", code, trace)
			}
		})
	}
}

// TestParseError_secretIsNoCode has secrets that look like a code.
func TestParseError_secretIsNoCode(t *testing.T) {
	if code, _ := parseError([]byte(`{"errors":[{"code":"not_found"},{"code":"gone"}]}`), "not_found"); code != "gone" {
		t.Fatalf("got %q", code)
	}
}

func requireFitToKeep(t *testing.T, key rotation.Details) {
	t.Helper()
	for _, id := range []string{key.ID, key.Identity, key.AccountID} {
		if id == "" || len(id) > 128 || strings.ContainsAny(id, "/?#% \n") {
			t.Fatalf("an id is %q", id)
		}
	}
	if showsIn(key, knownSecret) {
		t.Fatal("a key's details give a secret away")
	}
}

// showsIn says whether a detail holds the secret. Each is looked at by itself, because the end of
// one and the beginning of the next may be a short secret by chance.
func showsIn(key rotation.Details, secret rotation.Secret) bool {
	details := []string{key.ID, key.Identity, key.AccountID, key.Name, key.Description, key.ActionWhenLeaked}
	return slices.ContainsFunc(details, func(detail string) bool { return strings.Contains(detail, string(secret)) })
}

func FuzzParseKey(f *testing.F) {
	fuzzKey(f, keySeeds, oneKey[keyAnswer], requireFitToKeep)
}

// fuzzKey is the fuzzer of a parser of one key.
func fuzzKey(f *testing.F, seeds []string, parse func([]byte, ...rotation.Secret) (rotation.Details, string), requireFit func(*testing.T, rotation.Details)) {
	for _, seed := range seeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		key, reason := parse(body, knownSecret)
		if (key == rotation.Details{}) == (reason == "") {
			t.Fatal("neither or both of a key and a reason")
		}
		if reason == "" {
			requireFit(t, key)
		}
	})
}

func FuzzParseNewKey(f *testing.F) {
	fuzzNewKey(f, keySeeds, newKey[keyAnswer], requireFitToKeep)
}

// fuzzNewKey is the fuzzer of a parser of a key whose value counts.
func fuzzNewKey(f *testing.F, seeds []string, parse func([]byte, ...rotation.Secret) (rotation.Details, rotation.Secret, string), requireFit func(*testing.T, rotation.Details)) {
	for _, seed := range seeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		key, value, reason := parse(body, knownSecret)
		if reason == "" {
			requireFit(t, key)
		}
		if reason == "" && value == "" || key.ID == "" && (key != rotation.Details{} || value != "" || reason == "") {
			t.Fatal("a key without its value and no reason, or no key and none")
		}
		if len(value) > maxValueBytes || value != "" && showsIn(key, value) {
			t.Fatal("the value is no key, or shows in its details")
		}
	})
}

func FuzzParseList(f *testing.F) {
	for _, seed := range keySeeds {
		f.Add([]byte(`{"apikeys":[` + seed + `],"next":"https://iam.cloud.ibm.com/v1/apikeys?pagetoken=p"}`))
		f.Add([]byte(seed))
	}
	for _, next := range []string{"", "?", "http://%zz", "//elsewhere.example?pagetoken=p", "?pagetoken=%00"} {
		f.Add([]byte(`{"apikeys":[],"next":"` + next + `"}`))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, token, reason := parseList(body, knownSecret)
		if reason != "" && (keys != nil || token != "") || len(token) > maxPageTokenBytes {
			t.Fatal("a list and a reason, or too long a token")
		}
		for _, key := range keys {
			requireFitToKeep(t, key)
		}
	})
}

func FuzzParseError(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "null", "<html>", `{"trace":"t","status_code":"409","errors":[{"code":"conflict","message_code":"BXNIM0151E","message":"m"}]}`,
		`{"trace":"` + knownSecret + `","errors":[{"code":"` + knownSecret + `"}]}`, `{"errors":{}}`, `{"errors":[null,1]}`, `{"trace":1}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		code, trace := parseError(body, knownSecret)
		if len(code) > maxErrorCodeBytes || len(trace) > 64 || strings.Contains(code, knownSecret) || strings.Contains(trace, knownSecret) || strings.ContainsAny(code+trace, " \n") {
			t.Fatal("a code or trace is not fit to print")
		}
	})
}

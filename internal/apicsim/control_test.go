// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestControl_faults(t *testing.T) {
	s := newSim(t)
	control := s.Control()
	send := func(method, path, body string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		control.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
		return w
	}
	if got := send(http.MethodPut, "/fault", `{"kind":"status","status":503}`).Code; got != http.StatusNoContent {
		t.Fatalf("status is %d", got)
	}
	if got := exchange(s, nil).Code; got != 503 {
		t.Fatalf("status is %d", got)
	}
	send(http.MethodDelete, "/fault", "")
	if got := exchange(s, nil).Code; got != 200 {
		t.Fatalf("status is %d", got)
	}
	if got := send(http.MethodPut, "/fault", `no`).Code; got != http.StatusBadRequest {
		t.Fatalf("status is %d", got)
	}
	if got := send(http.MethodGet, "/counts", "").Body.String(); !strings.Contains(got, `"exchanges":2`) {
		t.Fatalf("counts are %s", got)
	}
}

func control(s *Sim, method, path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.Control().ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return w
}

func TestControl_keyAPI(t *testing.T) {
	s := newTokenSim(t)
	bearer := bearerOf(t, s, testKey)
	if got := control(s, http.MethodPut, "/key_fault", `{"call":"create","after":true,"kind":"status","status":500}`).Code; got != http.StatusNoContent {
		t.Fatalf("status is %d", got)
	}
	if got := callKeys(s, bearer, http.MethodPost, "/v1/apikeys", newKeyBody).Code; got != 500 {
		t.Errorf("status is %d", got)
	}
	control(s, http.MethodDelete, "/key_fault", "")
	if got := control(s, http.MethodPut, "/key_lag", `{"tokens":"1h","list":"1h"}`).Code; got != http.StatusNoContent {
		t.Fatalf("status is %d", got)
	}
	value, _ := decodeBody(t, callKeys(s, bearer, http.MethodPost, "/v1/apikeys", newKeyBody))["apikey"].(string)
	if got := exchangeAt(s, "iam", value, nil).Code; got != http.StatusBadRequest {
		t.Errorf("the new key's status is %d", got)
	}
	listed := control(s, http.MethodGet, "/keys", "").Body.String()
	if strings.Count(listed, `"created_by_api":true`) != 2 || strings.Contains(listed, value) || strings.Contains(listed, "deleted_at") {
		t.Errorf("keys are %s", listed)
	}
}

func TestControl_namesAndClock(t *testing.T) {
	s := newTokenSim(t)
	for path, body := range map[string]string{"/name_limit": `{"characters":4}`, "/clock": `{"skew":"-1h"}`} {
		if got := control(s, http.MethodPut, path, body).Code; got != http.StatusNoContent {
			t.Fatalf("%s: status is %d", path, got)
		}
	}
	w := callKeys(s, bearerOf(t, s, testKey), http.MethodPost, "/v1/apikeys", newKeyBody)
	dated, err := http.ParseTime(w.Header().Get("Date"))
	if decodeBody(t, w)["name"] != "succ" || err != nil || time.Since(dated) < 59*time.Minute {
		t.Errorf("answered %s at %s", w.Body, dated)
	}
}

func TestControl_tokenTTL(t *testing.T) {
	s := newTokenSim(t)
	if got := control(s, http.MethodPut, "/token_ttl", `{"ttl":"2m"}`).Code; got != http.StatusNoContent {
		t.Fatalf("status is %d", got)
	}
	exchangeAt(s, "platform", testKey, nil)
	if issued := s.Issued()[0]; issued.ExpiresAt.Sub(issued.IssuedAt) > 2*time.Minute {
		t.Errorf("the token lives from %s to %s", issued.IssuedAt, issued.ExpiresAt)
	}
}

func TestControl_aLagCountsForEachView(t *testing.T) {
	s := newTokenSim(t)
	if got := control(s, http.MethodPut, "/key_lag", `{"tokens":"1s","list":"2s","get":"3s","delete":"4s","every":2}`).Code; got != http.StatusNoContent {
		t.Fatalf("status is %d", got)
	}
	if want := (Lag{time.Second, 2 * time.Second, 3 * time.Second, 4 * time.Second, 2}); s.lag != want {
		t.Errorf("the lag is %+v", s.lag)
	}
}

func TestControl_refusesInvalidKeyFaultsAndDelays(t *testing.T) {
	s := newTokenSim(t)
	for path, bodies := range map[string][]string{
		"/key_fault":  {`{"call":"make"}`, `{"kind":"stattus"}`, `{"status":199}`, `{"latency":"5"}`, `{"latency":"-5s"}`, `{"after":1}`, `{"before":true}`, `{"service":"iam"}`, `no`},
		"/key_lag":    {`{"tokens":"5"}`, `{"list":5}`, `{"get":"-5s"}`, `{"every":-1}`, `no`},
		"/name_limit": {`{"characters":-1}`, `{"characters":"4"}`},
		"/clock":      {`{"skew":"5"}`, `{"skew":5}`},
		"/token_ttl":  {`{"ttl":"5"}`, `{"ttl":"-5s"}`, `{}`},
		"/fault":      {`{"service":"logout"}`},
	} {
		for _, body := range bodies {
			if got := control(s, http.MethodPut, path, body).Code; got != http.StatusBadRequest {
				t.Errorf("%s %s: status is %d", path, body, got)
			}
		}
	}
}

func TestControl_refusesInvalidFaults(t *testing.T) {
	s := newSim(t)
	for name, body := range map[string]string{
		"an unknown kind":         `{"kind":"stattus"}`,
		"an unknown field":        `{"kind":"status","code":500}`,
		"a status of no answer":   `{"kind":"status","status":199}`,
		"a latency without unit":  `{"latency":"5"}`,
		"a latency in numbers":    `{"latency":5}`,
		"a negative latency":      `{"latency":"-5s"}`,
		"a negative number":       `{"kind":"hang","times":-1}`,
		"more than one JSON":      `{} {}`,
		"more than anybody needs": `{"body":"` + strings.Repeat("x", maxFaultBytes) + `"}`,
	} {
		w := httptest.NewRecorder()
		s.Control().ServeHTTP(w, httptest.NewRequest(http.MethodPut, "/fault", strings.NewReader(body)))
		if w.Code != http.StatusBadRequest {
			t.Errorf("%s: status is %d", name, w.Code)
		}
	}
	if got := exchange(s, nil).Code; got != http.StatusOK {
		t.Errorf("after all that, an exchange has status %d", got)
	}
}

func TestControl_readsEveryFieldOfAFault(t *testing.T) {
	s := newSim(t)
	const fields = `"kind":"status","times":2,"status":429,"retry_after":"7","content_encoding":"br","latency":"1.5s","redirect_to":"/x","body":"no"`
	control(s, http.MethodPut, "/fault", `{"service":"iam",`+fields+`}`)
	control(s, http.MethodPut, "/key_fault", `{"call":"delete","after":true,`+fields+`}`)
	want := Fault{
		Kind: KindStatus, Times: 2, Status: 429, RetryAfter: "7", ContentEncoding: "br", Latency: 1500 * time.Millisecond,
		RedirectTo: "/x", Body: "no",
	}
	if got := s.keyFaults[CallDelete]; got == nil || !got.after || got.Fault != want {
		t.Errorf("of the key API there is %+v", got)
	}
	if want.Service = "iam"; s.fault == nil || s.fault.Fault != want {
		t.Errorf("there is %+v", s.fault)
	}
}

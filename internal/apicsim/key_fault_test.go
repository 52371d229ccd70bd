// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// tryKeys makes one call of the key API whose connection a fault may end.
func tryKeys(s *Sim, bearer, method, path, body string) (w *httptest.ResponseRecorder) {
	defer func() {
		// Without a connection to reset, a fault aborts the handler.
		_ = recover()
	}()
	return callKeys(s, bearer, method, path, body)
}

func TestKeyFault_beforeOrAfterACreation(t *testing.T) {
	for _, kind := range []FaultKind{KindStatus, KindReset, KindRedirect} {
		for _, after := range []bool{false, true} {
			s := newTokenSim(t)
			bearer := bearerOf(t, s, testKey)
			s.InjectKeyFault(KeyFault{Call: CallCreate, After: after, Kind: kind, Times: 1})
			w := tryKeys(s, bearer, http.MethodPost, "/v1/apikeys", newKeyBody)
			if w != nil && w.Code == http.StatusCreated {
				t.Errorf("%s: the answer is right", kind)
			}
			want := 0
			if after {
				want = 1
			}
			if got := s.Counts().KeysCreated; got != want || len(s.Keys()) != 1+want {
				t.Errorf("%s, after %t: %d keys were created", kind, after, got)
			}
			if got := callKeys(s, bearer, http.MethodPost, "/v1/apikeys", newKeyBody).Code; got != http.StatusCreated {
				t.Errorf("%s: the next call's status is %d", kind, got)
			}
		}
	}
}

func TestKeyFault_beforeOrAfterADeletion(t *testing.T) {
	for _, after := range []bool{false, true} {
		s := newTokenSim(t)
		bearer := bearerOf(t, s, testKey)
		s.InjectKeyFault(KeyFault{Call: CallDelete, After: after, Kind: KindStatus, Status: 500})
		if got := callKeys(s, bearer, http.MethodDelete, "/v1/apikeys/"+s.Keys()[0].ID, "").Code; got != 500 {
			t.Errorf("status is %d", got)
		}
		if s.Keys()[0].Exists() == after || (s.Counts().KeysDeleted == 1) != after {
			t.Errorf("after %t: the key is %+v", after, s.Keys()[0])
		}
	}
}

func TestKeyFault_hitsEachCallThatChangesOrReadsAKey(t *testing.T) {
	s := newTokenSim(t)
	bearer := bearerOf(t, s, testKey)
	path := "/v1/apikeys/" + s.Keys()[0].ID
	for _, c := range []struct {
		call         KeyCall
		method, path string
		status       int
	}{{CallGet, http.MethodGet, path, 200}, {CallDisable, http.MethodPost, path + "/disable", 204}, {CallEnable, http.MethodDelete, path + "/disable", 204}} {
		for _, after := range []bool{false, true} {
			s.InjectKeyFault(KeyFault{Call: c.call, After: after, Kind: KindStatus, Status: 500, Times: 1})
			if got := callKeys(s, bearer, c.method, c.path, "").Code; got != 500 {
				t.Errorf("%s: status is %d", c.call, got)
			}
			if got := s.Keys()[0].Disabled; c.call == CallDisable && got != after {
				t.Errorf("after %t: the key is disabled is %t", after, got)
			}
			if got := callKeys(s, bearer, c.method, c.path, "").Code; got != c.status {
				t.Errorf("%s, without a fault: status is %d", c.call, got)
			}
			if c.call == CallDisable {
				callKeys(s, bearer, http.MethodDelete, path+"/disable", "")
			}
		}
	}
}

func TestKeyFault_ofOneCallBeforeThatOfAll(t *testing.T) {
	s := newTokenSim(t)
	bearer := bearerOf(t, s, testKey)
	s.InjectKeyFault(KeyFault{Call: CallList, Kind: KindStatus, Status: 500, Times: 1})
	s.InjectKeyFault(KeyFault{Call: CallAny, Kind: KindStatus, Status: 502, Times: 2})
	for _, want := range []struct {
		path   string
		status int
	}{{"/v1/apikeys", 500}, {"/v1/apikeys/details", 502}, {"/v1/apikeys", 502}, {"/v1/apikeys", 200}, {"/v1/apikeys/details", 200}} {
		if got := callKeys(s, bearer, http.MethodGet, want.path, "").Code; got != want.status {
			t.Errorf("%s: status is %d, want %d", want.path, got, want.status)
		}
	}
	s.InjectKeyFault(KeyFault{Call: CallDetails, Kind: KindStatus})
	s.ClearKeyFaults()
	if got := callKeys(s, bearer, http.MethodGet, "/v1/apikeys/details", "").Code; got != 200 {
		t.Errorf("after all were cleared: status is %d", got)
	}
	if got := exchangeAt(s, "iam", testKey, nil).Code; got != http.StatusOK {
		t.Errorf("a token's status is %d", got)
	}
}

func TestKeyFault_hangEndsWithClientOrFault(t *testing.T) {
	for _, after := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newTokenSim(t)
			s.SetTokenTTL(time.Hour)
			bearer := bearerOf(t, s, testKey)
			s.InjectKeyFault(KeyFault{Call: CallCreate, After: after, Kind: KindHang})
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/apikeys", strings.NewReader(newKeyBody))
			r.Header.Set("Authorization", "Bearer "+bearer)
			r.Header.Set("Content-Type", "application/json")
			s.ServeHTTP(httptest.NewRecorder(), r)
			if got := s.Counts().KeysCreated == 1; got != after {
				t.Errorf("after %t: a key was created is %t", after, got)
			}
			time.AfterFunc(time.Minute, s.ClearKeyFaults)
			if got := callKeys(s, bearer, http.MethodPost, "/v1/apikeys", newKeyBody).Code; got != http.StatusCreated {
				t.Errorf("after the fault's end: status is %d", got)
			}
		})
	}
}

// TestKeyFault_noticesAClientThatLeft has the client send a body first.
func TestKeyFault_noticesAClientThatLeft(t *testing.T) {
	s := newTokenSim(t)
	s.InjectKeyFault(KeyFault{Kind: KindHang})
	ended := make(chan struct{})
	server, err := StartOn(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.ServeHTTP(w, r)
		close(ended)
	}), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL()+"/v1/apikeys", strings.NewReader(newKeyBody))
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := http.DefaultClient.Do(r); err == nil {
		resp.Body.Close()
		t.Fatal("there was an answer")
	}
	<-ended
}

func TestKeyFault_errorEchoesTheRequest(t *testing.T) {
	s := newTokenSim(t)
	bearer := bearerOf(t, s, testKey)
	s.InjectKeyFault(KeyFault{Kind: KindStatus})
	if !strings.Contains(callKeys(s, bearer, http.MethodGet, "/v1/apikeys/details", "").Body.String(), testKey) {
		t.Error("the error does not echo the key")
	}
	s.InjectKeyFault(KeyFault{Kind: KindStatus, Status: 403, Body: "{field}: {key}{token}", RetryAfter: "7"})
	if w := callKeys(s, bearer, http.MethodGet, "/v1/apikeys/details", ""); w.Body.String() != "id: "+testKey || w.Code != 403 || w.Header().Get("Retry-After") != "7" {
		t.Errorf("answered %d %q", w.Code, w.Body)
	}
}

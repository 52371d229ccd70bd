// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// views ask each view about a key, by its value and its id. Each answers whether the
// view knows the key and, where it can tell, takes it for enabled.
func views(t *testing.T, s *Sim, bearer string) map[view]func(value, id string) bool {
	return map[view]func(value, id string) bool{
		viewTokens: func(value, _ string) bool { return exchangeAt(s, "iam", value, nil).Code == http.StatusOK },
		viewList: func(_, id string) bool {
			keys, _ := decodeBody(t, callKeys(s, bearer, http.MethodGet, "/v1/apikeys?pagesize=100", ""))["apikeys"].([]any)
			return slices.ContainsFunc(keys, func(k any) bool { return k.(map[string]any)["id"] == id && k.(map[string]any)["disabled"] == false })
		},
		viewGet: func(_, id string) bool {
			return decodeBody(t, callKeys(s, bearer, http.MethodGet, "/v1/apikeys/"+id, ""))["disabled"] == false
		},
		viewDelete: func(_, id string) bool {
			return callKeys(s, bearer, http.MethodDelete, "/v1/apikeys/"+id+"/disable", "").Code == http.StatusNoContent
		},
	}
}

func lagOf(v view, d time.Duration) Lag {
	return map[view]Lag{viewTokens: {Tokens: d}, viewList: {List: d}, viewGet: {Get: d}, viewDelete: {Delete: d}}[v]
}

func TestLag_eachViewOnItsOwn(t *testing.T) {
	const lag = 5 * time.Second
	for lagging := range views(t, nil, "") {
		t.Run(string(lagging), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTokenSim(t)
				s.SetTokenTTL(time.Hour)
				s.SetLag(lagOf(lagging, lag))
				bearer := bearerOf(t, s, testKey)
				created := decodeBody(t, callKeys(s, bearer, http.MethodPost, "/v1/apikeys", newKeyBody))
				value, id := created["apikey"].(string), created["id"].(string)
				require := func(step string, others, ofLagging bool) {
					t.Helper()
					for v, knows := range views(t, s, bearer) {
						want := others
						if v == lagging {
							want = ofLagging
						}
						if got := knows(value, id); got != want {
							t.Errorf("%s: %s knows the key is %t", step, v, got)
						}
					}
				}
				require("just created", true, false)
				time.Sleep(lag - time.Nanosecond)
				require("a moment before", true, false)
				time.Sleep(time.Nanosecond)
				require("then", true, true)
				if lagging != viewDelete {
					callKeys(s, bearer, http.MethodDelete, "/v1/apikeys/"+id, "")
				} else {
					s.RevokeKeyID(id)
				}
				require("just deleted", false, true)
				time.Sleep(lag)
				require("in the end", false, false)
			})
		})
	}
}

func TestLag_aDisabledKeyStaysEnabledForATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTokenSim(t)
		s.SetLag(Lag{Tokens: 5 * time.Second, Get: 3 * time.Second})
		bearer := bearerOf(t, s, testKey)
		path := "/v1/apikeys/" + s.Keys()[0].ID
		if got := callKeys(s, bearer, http.MethodPost, path+"/disable", "").Code; got != http.StatusNoContent {
			t.Fatalf("status is %d", got)
		}
		disabled := func() any { return decodeBody(t, callKeys(s, bearer, http.MethodGet, path, ""))["disabled"] }
		for _, c := range []struct {
			after    time.Duration
			disabled bool
			status   int
		}{{0, false, 200}, {3 * time.Second, true, 200}, {2 * time.Second, true, 400}} {
			time.Sleep(c.after)
			if got := exchangeAt(s, "iam", testKey, nil).Code; got != c.status || disabled() != c.disabled {
				t.Errorf("%s later, a token's status is %d and the key is disabled is %v", c.after, got, disabled())
			}
		}
	})
}

func TestLag_onlyEverySecondCallMeetsAPartThatLags(t *testing.T) {
	s := newTokenSim(t)
	bearer := bearerOf(t, s, testKey)
	s.SetLag(Lag{Tokens: time.Hour, Every: 2})
	value, _ := decodeBody(t, callKeys(s, bearer, http.MethodPost, "/v1/apikeys", newKeyBody))["apikey"].(string)
	for n, want := range []int{200, 400, 200, 400} {
		if got := exchangeAt(s, "iam", value, nil).Code; got != want {
			t.Errorf("exchange %d: status is %d", n, got)
		}
	}
}

func TestLag_aLateDeletionIsCountedOnce(t *testing.T) {
	s := newTokenSim(t)
	s.SetLag(Lag{Delete: time.Hour})
	bearer := bearerOf(t, s, testKey)
	for range 2 {
		if got := callKeys(s, bearer, http.MethodDelete, "/v1/apikeys/"+s.Keys()[0].ID, "").Code; got != http.StatusNoContent {
			t.Errorf("status is %d", got)
		}
	}
	if got := s.Counts().KeysDeleted; got != 1 || s.Keys()[0].Exists() {
		t.Errorf("%d keys were deleted", got)
	}
}

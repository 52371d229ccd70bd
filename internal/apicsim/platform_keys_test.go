// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

func TestPlatformKeys_grantedLifetime(t *testing.T) {
	const week = 7 * 24 * time.Hour
	for name, c := range map[string]struct {
		keys      PlatformKeys
		ttl, want time.Duration
	}{
		"no wish":                    {PlatformKeys{}, 0, 5 * time.Minute},
		"a wish that is ignored":     {PlatformKeys{}, week, 5 * time.Minute},
		"ignored, with another life": {PlatformKeys{Life: time.Hour}, week, time.Hour},
		"granted":                    {PlatformKeys{MaxTTL: 2 * week}, week, week},
		"capped":                     {PlatformKeys{MaxTTL: week}, 2 * week, week},
		"no wish where it could be":  {PlatformKeys{MaxTTL: week}, 0, 5 * time.Minute},
	} {
		if got := c.keys.granted(c.ttl); got != c.want {
			t.Errorf("%s: the life is %s", name, got)
		}
	}
}

func TestPlatformKeys_createdKeysHaveTheirLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTokenSim(t)
		s.SetTokenTTL(24 * time.Hour)
		bearer := platformBearerOf(t, s, testKey)
		many := decodeBody(t, createAtPlatform(s, bearer, "many"))
		s.SetPlatformKeys(PlatformKeys{SingleUse: true, MaxTTL: time.Hour})
		once := decodeBody(t, createAtPlatform(s, bearer, "once"))
		for _, c := range []struct {
			after      time.Duration
			many, once int
		}{{5*time.Minute - time.Nanosecond, 200, 200}, {0, 200, 401}, {time.Nanosecond, 401, 401}} {
			time.Sleep(c.after)
			if got := exchangeAt(s, "platform", many["api_key"].(string), nil).Code; got != c.many {
				t.Errorf("%s later, the key for many uses: status is %d", c.after, got)
			}
			if got := exchangeAt(s, "platform", once["api_key"].(string), nil).Code; got != c.once {
				t.Errorf("%s later, the key for one: status is %d", c.after, got)
			}
		}
		if many["token_exp"].(float64)-many["token_iat"].(float64) != 300 || once["token_exp"].(float64)-once["token_iat"].(float64) != 3600 {
			t.Errorf("the keys say that they live from %v to %v and from %v to %v", many["token_iat"], many["token_exp"], once["token_iat"], once["token_exp"])
		}
		if keys := s.Keys(); keys[0].Spent || !keys[1].Spent || !keys[2].Spent {
			t.Errorf("keys are %+v", keys)
		}
		s.SetPlatformKeys(PlatformKeys{Refuse: 403})
		requirePlatformError(t, createAtPlatform(s, bearer, "refused"), http.StatusForbidden)
	})
}

func TestPlatformKeys_timesOfTheTokenInPlaceOfTheKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTokenSim(t)
		s.SetTokenTTL(8 * time.Hour)
		s.SetPlatformKeys(PlatformKeys{TokenTimes: true})
		bearer := platformBearerOf(t, s, testKey)
		claims := claimsOf(t, bearer)
		time.Sleep(28 * time.Minute)
		created := decodeBody(t, createAtPlatform(s, bearer, "n"))
		if created["token_exp"] != claims["exp"] || created["token_iat"] != claims["iat"] || created["token_jti"] != claims["jti"] {
			t.Errorf("the key is described with %v, %v and %v", created["token_iat"], created["token_exp"], created["token_jti"])
		}
		time.Sleep(5 * time.Minute)
		if got := exchangeAt(s, "platform", created["api_key"].(string), nil).Code; got != http.StatusUnauthorized {
			t.Errorf("after the key's own end, status is %d", got)
		}
	})
}

func TestPlatformKeys_lifetimeByTheServicesClock(t *testing.T) {
	s := newTokenSim(t)
	s.SetClockSkew(-time.Hour)
	s.AddLimitedKey("brief", KeyOptions{Life: 5 * time.Minute})
	created := decodeBody(t, createAtPlatform(s, platformBearerOf(t, s, "brief"), "n"))
	bornAt, err := time.Parse(time.RFC3339, created["created_at"].(string))
	if err != nil || time.Since(bornAt).Round(time.Minute) != time.Hour {
		t.Errorf("the key is of %s, error %v", bornAt, err)
	}
	// The clock jumps beyond both ends.
	s.SetClockSkew(-time.Hour + 6*time.Minute)
	for _, key := range []string{"brief", created["api_key"].(string)} {
		if got := exchangeAt(s, "platform", key, nil).Code; got != http.StatusUnauthorized {
			t.Errorf("status is %d", got)
		}
	}
	if got := exchangeAt(s, "platform", testKey, nil).Code; got != http.StatusOK {
		t.Errorf("a key without an end: status is %d", got)
	}
}

func TestControl_platformKeys(t *testing.T) {
	s := newTokenSim(t)
	if got := control(s, http.MethodPut, "/platform_keys", `{"single_use":true,"life":"1m","max_ttl":"720h","token_times":true,"refuse":403}`).Code; got != http.StatusNoContent {
		t.Fatalf("status is %d", got)
	}
	if want := (PlatformKeys{SingleUse: true, Life: time.Minute, MaxTTL: 720 * time.Hour, TokenTimes: true, Refuse: 403}); s.platformKeys != want {
		t.Errorf("the settings are %+v", s.platformKeys)
	}
	for _, body := range []string{`{"refuse":200}`, `{"refuse":600}`, `{"life":"5"}`, `{"max_ttl":"-5s"}`, `{"life":5}`, `no`} {
		if got := control(s, http.MethodPut, "/platform_keys", body).Code; got != http.StatusBadRequest {
			t.Errorf("%s: status is %d", body, got)
		}
	}
}

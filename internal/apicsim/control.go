// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"
)

// maxFaultBytes is the most that is read of a fault sent as JSON.
const maxFaultBytes = 1 << 20

// Control is the handler by which another process steers a simulation:
//
//	GET    /counts        Counts
//	PUT    /fault         a Fault; DELETE ends it
//	GET    /keys          the keys that there are and were
//	PUT    /key_fault     a KeyFault; DELETE ends all of them
//	PUT    /key_lag       a Lag: {"tokens":"30s","list":"5s","get":"5s","delete":"5s","every":2}
//	PUT    /name_limit    SetNameLimit: {"characters":40}
//	PUT    /clock         SetClockSkew: {"skew":"-90s"}
//	PUT    /token_ttl     SetTokenTTL: {"ttl":"8h"}
//	PUT    /platform_keys SetPlatformKeys: {"single_use":true,"life":"5m","max_ttl":"720h","token_times":true,"refuse":403}
//
// Bodies are JSON, and what a body leaves out is zero. It does not check who asks,
// so it belongs on loopback.
func (s *Sim) Control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /counts", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, s.Counts())
	})
	mux.HandleFunc("PUT /fault", put(func(f Fault) error {
		if err := f.check(); err != nil {
			return err
		}
		s.Inject(f)
		return nil
	}))
	mux.HandleFunc("DELETE /fault", func(w http.ResponseWriter, _ *http.Request) {
		s.ClearFault()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{"keys": s.Keys()})
	})
	mux.HandleFunc("PUT /key_fault", put(func(f KeyFault) error {
		if err := f.check(); err != nil {
			return err
		}
		s.InjectKeyFault(f)
		return nil
	}))
	mux.HandleFunc("DELETE /key_fault", func(w http.ResponseWriter, _ *http.Request) {
		s.ClearKeyFaults()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("PUT /key_lag", put(s.putLag))
	mux.HandleFunc("PUT /name_limit", put(s.putNameLimit))
	mux.HandleFunc("PUT /clock", put(s.putClock))
	mux.HandleFunc("PUT /platform_keys", put(s.putPlatformKeys))
	mux.HandleFunc("PUT /token_ttl", put(s.putTokenTTL))
	return mux
}

func (s *Sim) putLag(read lagJSON) error {
	lag, err := read.lag()
	if err != nil {
		return err
	}
	s.SetLag(lag)
	return nil
}

func (s *Sim) putNameLimit(limit struct{ Characters int }) error {
	if limit.Characters < 0 {
		return errors.New("characters must not be negative")
	}
	s.SetNameLimit(limit.Characters)
	return nil
}

func (s *Sim) putClock(clock struct{ Skew string }) error {
	skew, err := time.ParseDuration(cmp.Or(clock.Skew, "0"))
	if err != nil {
		return errors.New("skew must be a duration such as -90s")
	}
	s.SetClockSkew(skew)
	return nil
}

func (s *Sim) putTokenTTL(read struct{ TTL string }) error {
	ttl, err := time.ParseDuration(read.TTL)
	if err != nil || ttl <= 0 {
		return errors.New("ttl must be a positive duration such as 8h")
	}
	s.SetTokenTTL(ttl)
	return nil
}

func (s *Sim) putPlatformKeys(read platformKeysJSON) error {
	keys, err := read.platformKeys()
	if err != nil {
		return err
	}
	s.SetPlatformKeys(keys)
	return nil
}

// put takes a T as JSON and hands it to set, whose error says what is wrong with it.
func put[T any](set func(T) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxFaultBytes))
		if err != nil {
			answer(w, http.StatusBadRequest, message("the body cannot be read"))
			return
		}
		var value T
		if err := json.Unmarshal(body, &value); err != nil {
			answer(w, http.StatusBadRequest, message("the body is not what it should be: "+err.Error()))
			return
		}
		if err := set(value); err != nil {
			answer(w, http.StatusBadRequest, message(err.Error()))
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

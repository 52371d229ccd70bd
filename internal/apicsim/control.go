// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"bytes"
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
	mux.HandleFunc("PUT /fault", put(faultJSON.fault, s.Inject))
	mux.HandleFunc("DELETE /fault", func(w http.ResponseWriter, _ *http.Request) {
		s.ClearFault()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{"keys": s.Keys()})
	})
	mux.HandleFunc("PUT /key_fault", put(keyFaultJSON.keyFault, s.InjectKeyFault))
	mux.HandleFunc("DELETE /key_fault", func(w http.ResponseWriter, _ *http.Request) {
		s.ClearKeyFaults()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("PUT /key_lag", put(lagJSON.lag, s.SetLag))
	mux.HandleFunc("PUT /name_limit", put(readNameLimit, s.SetNameLimit))
	mux.HandleFunc("PUT /clock", put(readSkew, s.SetClockSkew))
	mux.HandleFunc("PUT /platform_keys", put(platformKeysJSON.platformKeys, s.SetPlatformKeys))
	mux.HandleFunc("PUT /token_ttl", put(readTokenTTL, s.SetTokenTTL))
	return mux
}

func readNameLimit(limit struct{ Characters int }) (int, error) {
	if limit.Characters < 0 {
		return 0, errors.New("characters must not be negative")
	}
	return limit.Characters, nil
}

func readSkew(clock struct{ Skew string }) (time.Duration, error) {
	skew, err := time.ParseDuration(cmp.Or(clock.Skew, "0"))
	if err != nil {
		return 0, errors.New("skew must be a duration such as -90s")
	}
	return skew, nil
}

func readTokenTTL(read struct{ TTL string }) (time.Duration, error) {
	ttl, err := time.ParseDuration(read.TTL)
	if err != nil || ttl <= 0 {
		return 0, errors.New("ttl must be a positive duration such as 8h")
	}
	return ttl, nil
}

// put reads a body of JSON with the fields of J, makes a T of it with read, whose error
// says what is wrong, and hands that to set.
func put[J, T any](read func(J) (T, error), set func(T)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxFaultBytes))
		if err != nil {
			answer(w, http.StatusBadRequest, message("the body cannot be read"))
			return
		}
		var sent J
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.DisallowUnknownFields()
		err = decoder.Decode(&sent)
		if err == nil && decoder.More() {
			err = errors.New("there is more than one value")
		}
		if err != nil {
			answer(w, http.StatusBadRequest, message("the body is not what it should be: "+err.Error()))
			return
		}
		value, err := read(sent)
		if err != nil {
			answer(w, http.StatusBadRequest, message(err.Error()))
			return
		}
		set(value)
		w.WriteHeader(http.StatusNoContent)
	}
}

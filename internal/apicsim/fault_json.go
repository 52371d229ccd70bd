// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// fields has Fault's fields without its methods.
type fields Fault

// faultJSON is a Fault whose latency is text: of two fields with one name, JSON
// takes the less deeply embedded.
type faultJSON struct {
	fields
	Latency string `json:"latency"`
}

// MarshalJSON writes what UnmarshalJSON reads.
func (f Fault) MarshalJSON() ([]byte, error) {
	return json.Marshal(f.asJSON())
}

func (f Fault) asJSON() faultJSON { return faultJSON{fields(f), f.Latency.String()} }

// fault fails for a latency that time.ParseDuration does not accept.
func (read faultJSON) fault() (Fault, error) {
	f := Fault(read.fields)
	if read.Latency == "" {
		return f, nil
	}
	latency, err := time.ParseDuration(read.Latency)
	if err != nil {
		return Fault{}, fmt.Errorf("latency: %w", err)
	}
	f.Latency = latency
	return f, nil
}

// UnmarshalJSON fails for a field that Fault does not have, such as a misspelt one, and for a latency that time.ParseDuration does not accept.
func (f *Fault) UnmarshalJSON(data []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	var read faultJSON
	if err := decoder.Decode(&read); err != nil {
		return err
	}
	fault, err := read.fault()
	if err != nil {
		return err
	}
	*f = fault
	return nil
}

// check says what is wrong with a fault that came from another process.
func (f Fault) check() error {
	if f.Service != "" && !slices.Contains([]string{"login", "iam", "platform"}, f.Service) {
		return fmt.Errorf("there is no token service %q", f.Service)
	}
	if f.Kind != "" && !slices.Contains(kinds(), f.Kind) {
		return fmt.Errorf("there is no fault of kind %q", f.Kind)
	}
	if f.Status != 0 && (f.Status < 400 || f.Status > 599) {
		return errors.New("status must be from 400 to 599")
	}
	if f.Times < 0 || f.Latency < 0 {
		return errors.New("times and latency must not be negative")
	}
	return nil
}
